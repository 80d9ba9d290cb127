//go:build freebsd || openbsd || netbsd || darwin

package dnsserver

func bigBuffer(fd int) {}
