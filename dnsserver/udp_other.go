//go:build !(linux && (amd64 || arm64))

package dnsserver

import (
	"context"
	"net"
)

func (s *Server) serveUDP(_ context.Context, c *net.UDPConn) { s.serveSimple(c) }
