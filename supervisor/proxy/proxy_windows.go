package proxy

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"time"

	"example.org/upkeep/supervisor/handoff"
)

// Options are how the supervisor has connections forwarded.
type Options struct {
	Program string
	Listen  []Listen
	Files   map[string]*os.File
	Hold    time.Duration
	Log     *slog.Logger
}

// A Proxy is the supervisor's end of the helper. There is none on Windows.
type Proxy struct{}

var errUnsupported = errors.New("the proxy mode does not work on Windows, where sockets can't be passed to its helper yet")

// Start returns an error.
func Start(context.Context, Options) (*Proxy, error) { return nil, errUnsupported }

// Attach returns nil.
func Attach(context.Context, *handoff.Bundle, Options) (*Proxy, error) { return nil, nil }

func (p *Proxy) Hold(context.Context, time.Duration) (int, error)           { return 0, errUnsupported }
func (p *Proxy) Switch(context.Context, Backends, time.Duration) error      { return errUnsupported }
func (p *Proxy) Release(context.Context) error                              { return errUnsupported }
func (p *Proxy) Drain(context.Context, time.Duration) (left int, err error) { return 0, errUnsupported }
func (p *Proxy) Stats(context.Context) (Stats, error)                       { return Stats{}, errUnsupported }
func (p *Proxy) Backends() Backends                                         { return nil }
func (p *Proxy) Addrs() map[string]string                                   { return nil }
func (p *Proxy) Close()                                                     {}
func (p *Proxy) Handoff(*handoff.Bundle) error                              { return errUnsupported }
