package tlog

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/durable"
)

// GenerateKey returns a new key pair for a log.
func GenerateKey(name string) (signerKey, verifierKey string, err error) {
	signerKey, verifierKey, err = note.GenerateKey(rand.Reader, name)
	if err == nil {
		_, err = note.NewVerifier(verifierKey) // checks the name
	}
	if err != nil {
		return "", "", fmt.Errorf("generating a key for log %q: %w", name, err)
	}
	return signerKey, verifierKey, nil
}

// LogOptions are the optional settings of a [Log].
type LogOptions struct {
	Logger  *slog.Logger
	Metrics prometheus.Registerer
}

// An Entry is a record to append and the key under which it is looked up.
type Entry struct {
	Key  string // "" for none
	Text []byte // ends in a newline, has no empty line
}

// A Log is an append-only log on disk. Its methods may be called from several
// goroutines; one process at a time has it open.
//
// Appends that wait at the same time share one write and one tree head (group
// commit). The order on disk is: records, full tiles, tree head, each synced
// before the next. So a tree head never covers what a crash could take away.
type Log struct {
	dir         string
	signer      note.Signer
	verifierKey string
	log         *slog.Logger
	lock        *durable.Locked
	metrics     *logMetrics

	requests chan *appendRequest
	closing  chan struct{}
	closed   chan struct{}
	once     sync.Once

	// Of the goroutine that writes.
	tree   treeWriter
	fresh  map[string]int64 // keys of records that are on disk and not yet under a tree head
	broken error

	mu      sync.RWMutex // protects what follows; held for writing while a tree head is published
	head    TreeHead
	keys    map[string]int64
	records *recordFile
	served  servedTiles
}

type appendRequest struct {
	entries []Entry
	first   int64
	err     error
	done    chan struct{}
}

// OpenLog opens the log in dir, creating an empty one if there is none. It
// reads all records and checks them against the signed tree head.
func OpenLog(dir, signerKey string, opts LogOptions) (*Log, error) {
	signer, verifierKey, err := openSigner(signerKey)
	if err != nil {
		return nil, err
	}
	l := &Log{
		dir: dir, signer: signer, verifierKey: verifierKey, log: opts.Logger,
		requests: make(chan *appendRequest, 1024), closing: make(chan struct{}), closed: make(chan struct{}),
		keys: map[string]int64{}, fresh: map[string]int64{}, metrics: newLogMetrics(opts.Metrics, signer.Name()),
	}
	if l.log == nil {
		l.log = slog.Default()
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("opening log %s: %w", signer.Name(), err)
	}
	if l.lock, err = durable.Lock(filepath.Join(dir, "lock")); err != nil {
		return nil, fmt.Errorf("opening log %s: %w", signer.Name(), err)
	}
	if err := l.load(); err != nil {
		l.lock.Unlock()
		return nil, fmt.Errorf("opening log %s in %s: %w", signer.Name(), dir, err)
	}
	go l.write()
	return l, nil
}

// load reads the log from disk.
func (l *Log) load() error {
	name := filepath.Join(l.dir, "latest")
	if err := durable.Clean(name); err != nil {
		return err
	}
	var head TreeHead
	msg, err := os.ReadFile(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		head.Hash = emptyHash
	case err != nil:
		return err
	default:
		v, err := note.NewVerifier(l.verifierKey)
		if err != nil {
			return err
		}
		if head, err = openHead(msg, v); err != nil {
			return fmt.Errorf("file latest: %w: restore it from a backup, or configure the key that made it", err)
		}
	}

	l.tree = treeWriter{dir: l.dir, log: l.log, check: true}
	matches := head.Size == 0
	rf, err := openRecords(filepath.Join(l.dir, "records"), func(e Entry) error {
		if e.Key != "" {
			l.keys[e.Key] = l.tree.edge.Size
		}
		l.tree.add(e.Text)
		if l.tree.edge.Size == head.Size {
			matches = l.tree.edge.Root() == head.Hash
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !matches {
		rf.f.Close()
		return fmt.Errorf("the %d good records in file records don't match the signed tree head of %d records: restore the folder from a backup; appending now would fork the log", l.tree.edge.Size, head.Size)
	}
	l.tree.check = false
	if err := l.tree.checkNewest(); err != nil {
		rf.f.Close()
		return err
	}
	if err := rf.cut(); err != nil {
		rf.f.Close()
		return err
	}
	l.records = rf
	l.head = head
	if msg == nil || l.tree.edge.Size > head.Size {
		// Whole records without a tree head come from a crash in the middle of an
		// append. Full tiles may hold them already, and those never change: keep them.
		if err := l.publish(); err != nil {
			rf.f.Close()
			return err
		}
		return nil
	}
	l.served = l.tree.served()
	l.metrics.head(head.Size)
	return nil
}

// publish signs a tree head over all records, stores it, and shows it with new keys.
func (l *Log) publish() error {
	if err := l.tree.flush(); err != nil {
		return err
	}
	head, err := signHead(ct.Tree{N: l.tree.edge.Size, Hash: l.tree.edge.Root()}, l.signer)
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(l.dir, "latest"), head.Note, 0o644); err != nil {
		return err
	}
	served := l.tree.served()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.head = head
	l.served = served
	for k, id := range l.fresh {
		l.keys[k] = id
	}
	clear(l.fresh)
	l.metrics.head(head.Size)
	return nil
}

// Append adds entries and returns the record number of the first when all are
// durable and under a signed tree head. Entries whose key has the same text
// already are not added again. A key with another text is [ErrKeyExists], and
// nothing is added. After another error the entries may or may not be in the
// log: append them again to know.
func (l *Log) Append(ctx context.Context, entries ...Entry) (firstID int64, err error) {
	if len(entries) == 0 {
		return 0, errors.New("appending to the log: no entries")
	}
	for _, e := range entries {
		if len(e.Key) > maxKey || len(e.Text) > maxText {
			return 0, fmt.Errorf("appending %.100q to the log: key or text is longer than %d or %d bytes", e.Key, maxKey, maxText)
		}
		if _, err := ct.FormatRecord(0, e.Text); err != nil || e.Text[0] == '\n' {
			return 0, fmt.Errorf("appending %.100q to the log: text must be lines of printable characters, none of them empty", e.Key)
		}
	}
	req := &appendRequest{entries: entries, done: make(chan struct{})}
	select {
	case l.requests <- req:
	case <-l.closing:
		return 0, errClosed
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	select {
	case <-req.done:
		return req.first, req.err
	case <-l.closed:
		select {
		case <-req.done:
			return req.first, req.err
		default:
			return 0, errClosed
		}
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

var errClosed = errors.New("the log is closed")

// maxGroup bounds the entries of one group commit.
const maxGroup = 4096

// write is the goroutine that writes.
func (l *Log) write() {
	defer close(l.closed)
	for {
		var group []*appendRequest
		select {
		case req := <-l.requests:
			group = append(group, req)
		case <-l.closing:
			return
		}
		for n := len(group[0].entries); n < maxGroup; {
			select {
			case req := <-l.requests:
				group = append(group, req)
				n += len(req.entries)
				continue
			default:
			}
			break
		}
		l.commit(group)
		for _, req := range group {
			close(req.done)
		}
	}
}

// commit appends the entries of a group and sets the requests' results.
func (l *Log) commit(group []*appendRequest) {
	b := batch{next: l.tree.edge.Size, keys: map[string]int64{}}
	for _, req := range group {
		if req.err = l.conflict(&b, req.entries); req.err != nil {
			continue
		}
		for i, e := range req.entries {
			id := l.place(&b, e)
			if i == 0 {
				req.first = id
			}
		}
	}
	err := l.store(&b)
	if err != nil {
		l.log.Error("append to the log failed", "log", l.signer.Name(), "err", err)
		for _, req := range group {
			if req.err == nil {
				req.first, req.err = 0, fmt.Errorf("appending to log %s: %w", l.signer.Name(), err)
			}
		}
		return
	}
	l.metrics.appended(len(b.texts))
}

// A batch is what one group commit adds.
type batch struct {
	next   int64 // number of the next record
	frames []byte
	starts []int64 // of the frames
	texts  [][]byte
	keys   map[string]int64
}

// known returns the record of a key, in the log, on disk or in the batch.
func (l *Log) known(b *batch, key string) (id int64, ok bool) {
	if key == "" {
		return 0, false
	}
	if id, ok = b.keys[key]; ok {
		return id, true
	}
	if id, ok = l.fresh[key]; ok {
		return id, true
	}
	return l.Find(key)
}

// place adds an entry to the batch unless its key is known.
func (l *Log) place(b *batch, e Entry) (id int64) {
	if id, ok := l.known(b, e.Key); ok {
		return id
	}
	id = b.next
	b.next++
	if e.Key != "" {
		b.keys[e.Key] = id
	}
	b.starts = append(b.starts, int64(len(b.frames)))
	b.frames = appendFrame(b.frames, e)
	b.texts = append(b.texts, e.Text)
	return id
}

// conflict returns an error if a key has another text already, in the log or
// among the entries themselves.
func (l *Log) conflict(b *batch, entries []Entry) error {
	own := map[string][]byte{}
	for _, e := range entries {
		have, ok := own[e.Key]
		if id, known := l.known(b, e.Key); known {
			ok = true
			if i := id - l.tree.edge.Size; i >= 0 {
				have = b.texts[i]
			} else if rec, err := l.records.read(l.records.offsets[id]); err != nil {
				return err
			} else {
				have = rec.Text
			}
		}
		if ok && string(have) != string(e.Text) {
			return fmt.Errorf("appending %s: %w", e.Key, ErrKeyExists)
		}
		if e.Key != "" {
			own[e.Key] = e.Text
		}
	}
	return nil
}

// store writes a batch and publishes. Records that are on disk stay there when
// publishing fails (the disk is full): the next store publishes them too.
func (l *Log) store(b *batch) error {
	if l.broken != nil {
		return fmt.Errorf("an earlier error makes it unsafe to go on before a restart: %w", l.broken)
	}
	if len(b.texts) > 0 {
		l.mu.Lock() // Record reads the offsets
		err := l.records.append(b.frames, b.starts)
		l.mu.Unlock()
		if err != nil {
			if !isFull(err) {
				l.broken = err // after a failed sync nobody knows what is on disk
			}
			return err
		}
		for _, text := range b.texts {
			l.tree.add(text)
		}
		for k, id := range b.keys {
			l.fresh[k] = id
		}
	}
	if l.tree.edge.Size == l.Head().Size {
		return nil // all of it was in the log already
	}
	return l.publish()
}

// Find returns the record number for a key.
func (l *Log) Find(key string) (id int64, ok bool) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	id, ok = l.keys[key]
	return id, ok && key != ""
}

// Head returns the current signed tree head.
func (l *Log) Head() TreeHead {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head
}

// Record returns the text of a record.
func (l *Log) Record(id int64) (text []byte, err error) {
	l.mu.RLock()
	size, rf := l.head.Size, l.records
	var offset int64
	if id >= 0 && id < size {
		offset = rf.offsets[id]
	}
	l.mu.RUnlock()
	if id < 0 || id >= size {
		return nil, fmt.Errorf("record %d: %w (it has %d records)", id, ErrNotFound, size)
	}
	e, err := rf.read(offset)
	return e.Text, err
}

// Key returns the key of a record, "" if it has none.
func (l *Log) Key(id int64) (string, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if id < 0 || id >= l.head.Size {
		return "", fmt.Errorf("record %d: %w (it has %d records)", id, ErrNotFound, l.head.Size)
	}
	e, err := l.records.read(l.records.offsets[id])
	return e.Key, err
}

// VerifierKey returns the key that clients configure.
func (l *Log) VerifierKey() string { return l.verifierKey }

// Close ends the log; what was appended is durable already.
func (l *Log) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closing)
		<-l.closed
		err = errors.Join(l.records.f.Close(), l.lock.Unlock())
	})
	return err
}
