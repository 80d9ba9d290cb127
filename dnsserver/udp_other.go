//go:build !(linux && (amd64 || arm64))

package dnsserver

import "net"

func (s *Server) serveUDP(c *net.UDPConn) { s.serveSimple(c) }
