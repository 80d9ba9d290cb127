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
	"slices"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/metric"
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
	Metrics *metric.Registry
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
	fresh  map[string]place // keys of records that are on disk and not yet under a tree head
	broken error

	mu      sync.RWMutex // protects what follows; held for writing while a tree head is published
	head    TreeHead
	keys    *keyTable // also holds keys of records behind head
	records *recordFile
	served  servedTiles

	hot hotTiles
}

// A place is where a record is.
type place struct{ id, offset int64 }

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
		fresh: map[string]place{}, metrics: newLogMetrics(opts.Metrics, signer.Name()),
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
		err = errors.Join(err, l.closeFiles(), l.lock.Unlock())
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

	if l.keys, err = newKeyTable(l.dir); err != nil {
		return err
	}
	l.tree = treeWriter{dir: l.dir, log: l.log, check: true}
	matches := head.Size == 0
	var keys []keyEntry
	l.records, err = openRecords(filepath.Join(l.dir, "records"), func(e Entry, offset int64) error {
		if e.Key != "" {
			keys = append(keys, keyEntry{l.keys.hash(e.Key), l.tree.edge.Size, offset})
		}
		if len(keys) == keysAtOnce {
			if err := l.keys.add(keys); err != nil {
				return err
			}
			keys = keys[:0]
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
		return fmt.Errorf("the %d good records in file records don't match the signed tree head of %d records: restore the folder from a backup; appending now would fork the log", l.tree.edge.Size, head.Size)
	}
	if msg == nil {
		// The first start signs a head of nothing before anything is appended.
		if err := l.checkEmpty(); err != nil {
			return err
		}
	}
	if err := l.keys.add(keys); err != nil {
		return err
	}
	l.tree.check = false
	if err := l.tree.checkNewest(); err != nil {
		return err
	}
	if err := l.records.cut(); err != nil {
		return err
	}
	l.head = head
	if msg == nil || l.tree.edge.Size > head.Size {
		// Whole records without a tree head come from a crash in the middle of an
		// append. Full tiles may hold them already, and those never change: keep them.
		return l.publish()
	}
	l.served = l.tree.served()
	l.metrics.head(head.Size)
	return nil
}

// checkEmpty returns an error if the folder of a log without a tree head holds
// anything of one: heads were signed of it that others have seen.
func (l *Log) checkEmpty() error {
	fi, err := l.records.f.Stat()
	if err != nil {
		return err
	}
	found := "file records"
	if fi.Size() == 0 {
		first := ct.Tile{H: tileHeight, L: dataLevel, N: 0, W: tileWidth}
		if _, err := os.Stat(l.tree.file(first)); err != nil {
			return nil
		}
		found = "tile " + first.Path()
	}
	return fmt.Errorf("file latest, the signed tree head, is missing, and %s is there: restore the folder from a backup, or the last tree head from somebody who has it; signing another could fork the log", found)
}

// keysAtOnce bounds the keys that are collected at the start, one megabyte or so.
const keysAtOnce = 32 << 10

// closeFiles closes what load opened.
func (l *Log) closeFiles() error {
	var errs []error
	if l.records != nil {
		errs = append(errs, l.records.f.Close())
	}
	if l.keys != nil {
		errs = append(errs, l.keys.close())
	}
	return errors.Join(errs...)
}

// publish signs a tree head over all records, stores it, and shows it with new keys.
func (l *Log) publish() error {
	if err := l.tree.flush(); err != nil {
		return err
	}
	if err := l.addKeys(); err != nil {
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
	clear(l.fresh)
	l.metrics.head(head.Size)
	return nil
}

// addKeys puts the keys of records that will be published into the table.
// Readers pass over them until the tree head covers them.
func (l *Log) addKeys() error {
	entries := make([]keyEntry, 0, len(l.fresh))
	for k, p := range l.fresh {
		entries = append(entries, keyEntry{l.keys.hash(k), p.id, p.offset})
	}
	for part := range slices.Chunk(entries, 256) { // readers wait meanwhile
		l.mu.Lock()
		err := l.keys.add(part)
		l.mu.Unlock()
		if err != nil {
			return err
		}
	}
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

// Find returns the record number for a key.
func (l *Log) Find(key string) (id int64, ok bool) {
	id, _, err := l.lookup(key)
	if err != nil && !errors.Is(err, ErrNotFound) {
		l.log.Error("looking up a key; it counts as unknown, and can't be appended", "key", key, "err", err)
	}
	return id, err == nil
}

// lookup returns the record of a key, or an error that is [ErrNotFound].
func (l *Log) lookup(key string) (id int64, e Entry, err error) {
	if key == "" {
		return 0, Entry{}, ErrNotFound
	}
	found := false
	l.mu.RLock()
	defer l.mu.RUnlock()
	err = l.keys.find(key, func(k keyEntry) (bool, error) {
		if k.id >= l.head.Size {
			return false, nil
		}
		var err error
		e, err = l.records.read(k.offset, 0)
		id, found = k.id, err == nil && e.Key == key
		return found, err
	})
	if err == nil && !found {
		return 0, Entry{}, ErrNotFound
	}
	return id, e, err
}

// Head returns the current signed tree head.
func (l *Log) Head() TreeHead {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.head
}

// Record returns the text of a record.
func (l *Log) Record(id int64) (text []byte, err error) {
	e, err := l.published(id)
	return e.Text, err
}

// Key returns the key of a record, "" if it has none.
func (l *Log) Key(id int64) (string, error) {
	e, err := l.published(id)
	return e.Key, err
}

func (l *Log) published(id int64) (Entry, error) {
	if size := l.Head().Size; id < 0 || id >= size {
		return Entry{}, fmt.Errorf("record %d: %w (it has %d records)", id, ErrNotFound, size)
	}
	return l.recordAt(id)
}

// recordAt returns a record that is on disk.
func (l *Log) recordAt(id int64) (Entry, error) {
	l.mu.RLock()
	offset := l.records.marks[id/markEvery]
	l.mu.RUnlock()
	return l.records.read(offset, id%markEvery)
}

// Sign signs a statement of the log's owner that is no tree head; its first
// line says what it is.
func (l *Log) Sign(text string) ([]byte, error) {
	if strings.HasPrefix(text, "go.sum database tree\n") {
		return nil, errors.New("signing a statement: it reads as a tree head, which only the log itself signs")
	}
	return note.Sign(&note.Note{Text: text}, l.signer)
}

// VerifierKey returns the key that clients configure.
func (l *Log) VerifierKey() string { return l.verifierKey }

// Close ends the log; what was appended is durable already.
func (l *Log) Close() error {
	var err error
	l.once.Do(func() {
		close(l.closing)
		<-l.closed
		l.mu.Lock() // lookups may be under way
		defer l.mu.Unlock()
		err = errors.Join(l.closeFiles(), l.lock.Unlock())
	})
	return err
}
