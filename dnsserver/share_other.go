//go:build !(linux || freebsd || openbsd || netbsd || darwin)

package dnsserver

import "syscall"

const canShare = false

func sharePort(network, address string, c syscall.RawConn) error { return nil }
