package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds towards the network.
const (
	maxConns          = 16384 // of one listener
	maxHeader         = 64 << 10
	readHeaderTimeout = 10 * time.Second
	idleTimeout       = 2 * time.Minute
	dialTimeout       = 5 * time.Second
	maxAnswerHeader   = 1 << 20
	// backendIdle is below the time after which servers usually close an idle
	// connection, so that a request doesn't meet one that is being closed.
	backendIdle    = 20 * time.Second
	maxBackendIdle = 256
	copyBuffer     = 32 << 10
	// settleTime is what a new connection gets to bring its first request.
	settleTime = 250 * time.Millisecond
	// lingerTime is what a client gets to close a connection that the service
	// has ended.
	lingerTime = 10 * time.Second
)

// forwarder forwards what comes to one listener.
type forwarder struct {
	name string
	gate *gate
	log  *slog.Logger

	mu   sync.Mutex
	run  *run // that the transports are of
	conn *transports
}

// transports returns those of a run. Each has connections of its own: none of
// an old backend is used again.
func (f *forwarder) transports(r *run) *transports {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r != f.run {
		if f.conn != nil {
			f.conn.close()
		}
		f.run, f.conn = r, newTransports()
	}
	return f.conn
}

// closeIdle closes connections to the service that nobody uses. A server that
// is told to end waits for those on which no request ever came.
func (f *forwarder) closeIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.conn != nil {
		f.conn.close()
	}
}

// serve forwards until the listener is closed.
func (f *forwarder) serve(l net.Listener, mode Mode) error {
	if mode == TCP {
		return f.serveTCP(l)
	}
	return f.httpServer().Serve(netutil.LimitListener(l, maxConns))
}

// A transports is how requests reach one run: what came as HTTP/2 goes on as HTTP/2.
type transports struct{ one, two *http.Transport }

func newTransport(protocols *http.Protocols) *http.Transport {
	return &http.Transport{
		Proxy:                  nil,
		DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MaxIdleConns:           maxBackendIdle,
		MaxIdleConnsPerHost:    maxBackendIdle,
		IdleConnTimeout:        backendIdle,
		MaxResponseHeaderBytes: maxAnswerHeader,
		DisableCompression:     true,
		Protocols:              protocols,
		ReadBufferSize:         copyBuffer,
		WriteBufferSize:        copyBuffer,
	}
}

func newTransports() *transports {
	var one, two http.Protocols
	one.SetHTTP1(true)
	two.SetUnencryptedHTTP2(true)
	return &transports{newTransport(&one), newTransport(&two)}
}

func (t *transports) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Context().Value(protoKey{}) == 2 {
		return t.two.RoundTrip(r)
	}
	return t.one.RoundTrip(r)
}

func (t *transports) close() {
	t.one.CloseIdleConnections()
	t.two.CloseIdleConnections()
}

type (
	runKey   struct{}
	protoKey struct{}
	doneKey  struct{}
)

var buffers = sync.Pool{New: func() any {
	b := make([]byte, copyBuffer)
	return &b
}}

type pool struct{}

func (pool) Get() []byte  { return *buffers.Get().(*[]byte) }
func (pool) Put(b []byte) { buffers.Put(&b) }

func (f *forwarder) httpServer() *http.Server {
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			r := p.In.Context().Value(runKey{}).(*run)
			p.Out.URL.Scheme, p.Out.URL.Host = "http", r.backends[f.name]
			p.Out.URL.RawQuery = p.In.URL.RawQuery
			p.Out.Host = p.In.Host
			p.SetXForwarded()
		},
		Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			return f.transports(req.Context().Value(runKey{}).(*run)).RoundTrip(req)
		}),
		BufferPool: pool{},
		ModifyResponse: func(resp *http.Response) error {
			if resp.StatusCode == http.StatusSwitchingProtocols {
				// A WebSocket can last for days: nobody waits for its end.
				resp.Request.Context().Value(doneKey{}).(func())()
			}
			return nil
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if r.Context().Err() == nil {
				f.log.Warn("forwarding a request", "to", f.name, "err", err)
			}
			w.WriteHeader(http.StatusBadGateway)
		},
		ErrorLog: slog.NewLogLogger(f.log.Handler(), slog.LevelWarn),
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			run, err := f.gate.enter(r.Context())
			if err != nil {
				w.Header().Set("Retry-After", "5")
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			done := sync.OnceFunc(func() { f.gate.leave(run) })
			defer done()
			ctx := context.WithValue(r.Context(), runKey{}, run)
			ctx = context.WithValue(ctx, protoKey{}, r.ProtoMajor)
			ctx = context.WithValue(ctx, doneKey{}, done)
			proxy.ServeHTTP(w, r.WithContext(ctx))
		}),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		Protocols:         &protocols,
		ErrorLog:          slog.NewLogLogger(f.log.Handler(), slog.LevelDebug),
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (f *forwarder) serveTCP(l net.Listener) error {
	// Beyond the limit, connections wait in the kernel's queue. (A wrapped
	// connection would keep the kernel from copying by itself.)
	slots := make(chan struct{}, maxConns)
	for {
		slots <- struct{}{}
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil {
			// Out of descriptors, for example: it gets better.
			f.log.Warn("accepting a connection", "on", f.name, "err", err)
			time.Sleep(50 * time.Millisecond)
			<-slots
			continue
		}
		go func() {
			defer func() { <-slots }()
			f.connection(c)
		}()
	}
}

// connection forwards bytes both ways.
func (f *forwarder) connection(client net.Conn) {
	defer client.Close()
	run, err := f.gate.enter(context.Background())
	if err != nil {
		return
	}
	// Whether a connection is in use can't be seen from the outside, so nobody
	// waits for its end: it goes on with the process that it reached. Only a new
	// one is taken for a request under way: a server that is told to end closes
	// connections on which it has not yet read one.
	leave := sync.OnceFunc(func() { f.gate.leave(run) })
	defer leave()
	server, err := net.DialTimeout("tcp", run.backends[f.name], dialTimeout)
	time.AfterFunc(settleTime, leave)
	if err != nil {
		f.log.Warn("forwarding a connection", "to", f.name, "err", err)
		return
	}
	defer server.Close()
	one := func(to, from net.Conn) {
		_, _ = io.Copy(to, from) // how a connection breaks is its two ends' business
		if c, ok := to.(interface{ CloseWrite() error }); ok {
			_ = c.CloseWrite()
		}
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		one(server, client)
	}()
	one(client, server)
	// Nothing comes any more, so there is little reason to go on reading.
	_ = client.SetReadDeadline(time.Now().Add(lingerTime))
	<-sent
}
