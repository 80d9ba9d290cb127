package logtest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/tlog"
)

// Faults are what goes wrong with a server. Every N-th request (or tile) means
// never if N is 0.
type Faults struct {
	Delay      time.Duration // before each answer
	Status     int           // answered instead, with RetryAfter (seconds, 0 for none) ...
	Every      int64         // ... to every so many requests for tiles
	RetryAfter int
	Cut        int64                   // every so many tiles are cut short
	Flip       int64                   // every so many tiles have one bit wrong
	RefuseData bool                    // data tiles are answered with 403
	NoPartial  bool                    // partial tiles are gone once the full one is there
	Growth     int64                   // records added at each request
	Before     func(r *http.Request)   // called before each answer, may be nil
	Change     func(path string) error // an error is answered as 500, may be nil
}

// A Server serves a Content as a checksum database.
type Server struct {
	signer   note.Signer
	verifier string

	mu       sync.Mutex
	tree     tree
	size     int64
	latest   []byte
	faults   Faults
	tiles    int64 // asked for
	data     int64 // data tiles answered
	requests int64
	keys     map[string]int64
	keyed    int64
}

// NewServer returns a server of the first records of a content. signerKey ""
// makes a new key.
func NewServer(signerKey string, c Content, size int64) (*Server, error) {
	s, err := newServer(signerKey, c)
	if err != nil {
		return nil, err
	}
	return s, s.SetSize(size)
}

func newServer(signerKey string, c Content) (*Server, error) {
	if signerKey == "" {
		var err error
		if signerKey, _, err = tlog.GenerateKey("db.example.org"); err != nil {
			return nil, err
		}
	}
	signer, err := note.NewSigner(signerKey)
	if err != nil {
		return nil, err
	}
	verifier, err := tlog.VerifierKey(signerKey)
	if err != nil {
		return nil, err
	}
	return &Server{signer: signer, verifier: verifier, tree: tree{content: &c}}, nil
}

// VerifierKey returns the key that clients configure.
func (s *Server) VerifierKey() string { return s.verifier }

// SetSize makes the log longer, or shorter as an honest log never gets.
func (s *Server) SetSize(size int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.setSize(size)
}

func (s *Server) setSize(size int64) error {
	s.tree.grow(size)
	msg, err := note.Sign(&note.Note{Text: string(ct.FormatTree(s.tree.head(size)))}, s.signer)
	if err != nil {
		return fmt.Errorf("signing a tree head: %w", err)
	}
	s.size, s.latest = size, msg
	return nil
}

// SetFaults replaces the faults.
func (s *Server) SetFaults(f Faults) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = f
}

// Requests returns how many requests there were, and how many data tiles were answered.
func (s *Server) Requests() (all, data int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.requests, s.data
}

// ServeHTTP serves the protocol of the checksum database.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests++
	f := s.faults
	if f.Growth > 0 {
		if err := s.setSize(s.size + f.Growth); err != nil {
			panic(err)
		}
	}
	s.mu.Unlock()
	if f.Before != nil {
		f.Before(r)
	}
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.Change != nil {
		if err := f.Change(r.URL.Path); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
	}
	path := r.URL.Path
	switch {
	case path == "/supported":
	case path == "/latest":
		s.mu.Lock()
		msg := s.latest
		s.mu.Unlock()
		_, _ = w.Write(msg)
	case strings.HasPrefix(path, "/lookup/"):
		s.lookup(w, strings.TrimPrefix(path, "/lookup/"))
	case strings.HasPrefix(path, "/tile/"):
		s.tile(w, path[1:], f)
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) tile(w http.ResponseWriter, path string, f Faults) {
	t, err := ct.ParseTilePath(path)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	s.tiles++
	n, size, view := s.tiles, s.size, s.tree
	view.levels = append([][]ct.Hash(nil), s.tree.levels...)
	s.mu.Unlock()
	every := func(n2 int64) bool { return n2 > 0 && n%n2 == 0 }
	if f.Status != 0 && every(f.Every) {
		if f.RetryAfter > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
		}
		http.Error(w, "not now", f.Status)
		return
	}
	if f.RefuseData && t.L == -1 {
		http.Error(w, "data tiles are not served here", http.StatusForbidden)
		return
	}
	if f.NoPartial && t.W < tileWidth && (t.N+1)*tileWidth <= size>>(8*max(t.L, 0)) {
		http.NotFound(w, nil)
		return
	}
	b := view.tile(t, size)
	if b == nil {
		http.NotFound(w, nil)
		return
	}
	if t.L == -1 {
		s.mu.Lock()
		s.data++
		s.mu.Unlock()
	}
	if every(f.Cut) {
		b = b[:len(b)*2/3]
	}
	if every(f.Flip) {
		b[len(b)/2] ^= 1
	}
	_, _ = w.Write(b)
}

// lookup answers for small logs: it keeps all keys.
func (s *Server) lookup(w http.ResponseWriter, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = map[string]int64{}
	}
	for ; s.keyed < s.size; s.keyed++ {
		k := strings.Replace(string(s.tree.content.AppendVersion(nil, s.keyed)), " ", "@", 1)
		if _, ok := s.keys[k]; !ok {
			s.keys[k] = s.keyed
		}
	}
	id, ok := s.keys[key]
	if !ok {
		http.NotFound(w, nil)
		return
	}
	msg, err := ct.FormatRecord(id, s.tree.content.Append(nil, id))
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(append(msg, s.latest...))
}
