package durable

import (
	"os"
	"syscall"
)

// Conn is the descriptor that holds the lock, for a program that takes this
// one's place and keeps it.
func (l *Locked) Conn() syscall.Conn { return l.f }

// Adopt goes on with a lock that the program before took.
func Adopt(f *os.File) *Locked { return &Locked{f} }
