package tlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/note"
	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/metric"
)

// ClientConfig says which log a [Client] reads.
type ClientConfig struct {
	Key   string   // verifier key
	URL   string   // base address, for example https://log.example.org/tlog, <module proxy>/sumdb/<name> or file:///folder
	Dir   string   // state folder, created if needed; several processes may share it
	Tiles *TileDir // keeps verified tiles, nil for none

	Attempts int              // for a tree head or tile, on errors that may pass; 0 means 4
	Limits   Limits           // on traffic
	HTTP     *http.Client     // nil: a client of its own
	Logger   *slog.Logger     // nil: slog.Default()
	Metrics  *metric.Registry // nil: none
}

// A Client keeps the newest accepted tree head of a log and looks up records.
// Its methods may be called from several goroutines.
type Client struct {
	verifier  note.Verifier
	transport *transport
	state     *stateDir
	dir       *TileDir
	tiles     tileCache
	attempts  int
	log       *slog.Logger
	metrics   *clientMetrics

	mu      sync.Mutex
	head    TreeHead
	known   bool
	checked time.Time
}

// NewClient returns a client and reads the tree head kept from before.
func NewClient(cfg ClientConfig) (*Client, error) {
	v, err := note.NewVerifier(cfg.Key)
	if err != nil {
		return nil, fmt.Errorf("verifier key %q of a log: %w", cfg.Key, err)
	}
	c := &Client{verifier: v, dir: cfg.Tiles, attempts: cfg.Attempts, log: cfg.Logger}
	if c.attempts <= 0 {
		c.attempts = 4
	}
	if c.log == nil {
		c.log = slog.Default()
	}
	c.metrics = newClientMetrics(cfg.Metrics, v.Name())
	if c.transport, err = newTransport(cfg.URL, cfg.HTTP, cfg.Limits, c.metrics); err != nil {
		return nil, err
	}
	if c.state, err = newStateDir(cfg.Dir, v, c.log, c.metrics); err != nil {
		return nil, err
	}
	k, ok, err := c.state.load()
	if err != nil {
		return nil, err
	}
	c.head, c.known = k.TreeHead, ok
	c.metrics.head(c.head.Size)
	return c, nil
}

// Name returns the name of the log, as in its key.
func (c *Client) Name() string { return c.verifier.Name() }

// URL returns the address the log is read from.
func (c *Client) URL() string {
	if c.transport.dir != "" {
		return c.transport.dir
	}
	return c.transport.base
}

// Head returns the newest accepted tree head; ok is false before the first one.
func (c *Client) Head() (head TreeHead, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.head, c.known
}

// Checked returns when the log was last found to agree with the accepted tree
// head, the zero time if this client has not heard of it yet.
func (c *Client) Checked() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checked
}

// Update fetches the log's tree head and accepts it when it extends the kept
// one. Its errors: [ErrSignature], [*ForkError], [ErrStale], [ErrShrunk],
// [ErrInconsistent] and those of the network.
func (c *Client) Update(ctx context.Context) (TreeHead, error) {
	var msg []byte
	err := retry(ctx, c.attempts, c.log, func() (err error) {
		msg, err = c.transport.getSoon(ctx, "latest", maxNote)
		return err
	})
	if err != nil {
		c.metrics.update(err, false)
		return TreeHead{}, fmt.Errorf("asking log %s for its tree head: %w", c.Name(), err)
	}
	return c.accept(ctx, msg)
}

// accept checks a signed note and moves to its tree head when that is newer.
// It returns the kept tree head.
func (c *Client) accept(ctx context.Context, msg []byte) (current TreeHead, err error) {
	advanced := false
	defer func() { c.metrics.update(err, advanced) }()
	got, err := openHead(msg, c.verifier)
	if err != nil {
		return TreeHead{}, err
	}
	if head, ok := c.Head(); ok && head.Size == got.Size && head.Hash == got.Hash {
		c.agree(head)
		return head, nil
	}
	for {
		k, ok, err := c.state.load()
		if err != nil {
			return TreeHead{}, err
		}
		var old *kept
		if ok {
			onDisk := k
			old = &onDisk
		}
		// The files may have been damaged or removed since this process accepted a
		// later tree head.
		if mine, known := c.Head(); known && (!ok || mine.Size > k.Size) {
			k, ok = kept{TreeHead: mine, before: k.before}, true
		}
		if ok {
			if err := c.compare(ctx, k, got); err != nil {
				if errors.Is(err, ErrStale) {
					c.know(k.TreeHead) // another process may have taken it on
				}
				return k.TreeHead, err
			}
			if k.Size == got.Size {
				c.agree(k.TreeHead)
				return k.TreeHead, nil
			}
		}
		got.Accepted = time.Now().UTC()
		err = c.state.replace(old, got)
		if errors.Is(err, errChanged) {
			continue // another process was faster: compare with what it kept
		}
		if err != nil {
			return k.TreeHead, fmt.Errorf("keeping the tree head of log %s: %w", c.Name(), err)
		}
		advanced = true
		c.agree(got)
		return got, nil
	}
}

// agree notes that the log agrees with an accepted tree head.
func (c *Client) agree(head TreeHead) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checked = time.Now()
	c.knowLocked(head)
}

// know takes on a tree head that another process has accepted.
func (c *Client) know(head TreeHead) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.knowLocked(head)
}

func (c *Client) knowLocked(head TreeHead) {
	if !c.known || head.Size > c.head.Size {
		c.head, c.known = head, true
		c.metrics.head(head.Size)
	}
}

// compare returns nil when got is the same as what is kept or extends it.
func (c *Client) compare(ctx context.Context, k kept, got TreeHead) error {
	stale := fmt.Errorf("log %s offers a tree head of %d records: %w (%d records)", c.Name(), got.Size, ErrStale, k.Size)
	for _, t := range k.before {
		if t.N == got.Size {
			if t.Hash != got.Hash {
				return c.fork(k.TreeHead, got)
			}
			return stale
		}
	}
	older, newer := k.TreeHead, got
	if got.Size < k.Size {
		older, newer = got, k.TreeHead
	}
	hash, err := c.treeHash(ctx, newer, older.Size)
	switch {
	case err != nil && got.Size < k.Size && ctx.Err() == nil:
		evidence := c.state.evidence(evidenceShrunk, "it offers fewer records than before, and no proof that both tree heads belong to one history", k.TreeHead, got)
		c.log.Error("the log shrank", "log", c.Name(), "kept_size", k.Size, "got_size", got.Size, "evidence", evidence, "err", err)
		where := "the program's log"
		if evidence != "" {
			where = evidence
		}
		return fmt.Errorf("log %s %w: %d records, after %d; both signed tree heads are in %s (%w)", c.Name(), ErrShrunk, got.Size, k.Size, where, err)
	case err != nil:
		return fmt.Errorf("comparing the tree head of log %s of %d records with the accepted one of %d: %w", c.Name(), got.Size, k.Size, err)
	case hash != older.Hash:
		return c.fork(k.TreeHead, got)
	case got.Size < k.Size:
		return stale
	}
	return nil
}

func (c *Client) fork(kept, got TreeHead) error {
	err := &ForkError{Log: c.Name(), Kept: kept, Got: got}
	err.Evidence = c.state.evidence(evidenceFork, "it signed two tree heads of which none extends the other", kept, got)
	c.log.Error("the log is forked", "log", c.Name(), "kept_size", kept.Size, "kept_hash", kept.Hash.String(), "got_size", got.Size, "got_hash", got.Hash.String(), "evidence", err.Evidence)
	return err
}

// treeHash returns the proven hash that the tree under head had at an earlier size.
func (c *Client) treeHash(ctx context.Context, head TreeHead, size int64) (ct.Hash, error) {
	if size == head.Size {
		return head.Hash, nil
	}
	return ct.TreeHash(size, c.hashReader(ctx, head))
}

// Lookup returns the verified record for a key: what stands after /lookup/ in
// the protocol, escaped by the caller. For a log that makes records on demand
// it may take as long as ctx allows. Without a record it returns [ErrNotFound].
func (c *Client) Lookup(ctx context.Context, key string) (Record, error) {
	msg, err := c.transport.get(ctx, "lookup/"+key, maxLookup, 0)
	if missing(err) {
		return Record{}, fmt.Errorf("looking up %s in log %s: %w: %w", key, c.Name(), ErrNotFound, err)
	}
	if err != nil {
		return Record{}, fmt.Errorf("looking up %s in log %s: %w", key, c.Name(), err)
	}
	rec, err := c.checkLookup(ctx, msg)
	if err != nil {
		return Record{}, fmt.Errorf("looking up %s in log %s: %w", key, c.Name(), err)
	}
	return rec, nil
}

func (c *Client) checkLookup(ctx context.Context, msg []byte) (Record, error) {
	id, text, msg, err := ct.ParseRecord(msg)
	if err != nil {
		return Record{}, fmt.Errorf("answer: %w", err)
	}
	// An answer may come from a cache and carry an older tree head. That is
	// fine once it is known to be of the same history.
	head, err := c.accept(ctx, msg)
	if err != nil && !errors.Is(err, ErrStale) {
		return Record{}, err
	}
	if id < 0 || id >= head.Size {
		return Record{}, fmt.Errorf("answer names record %d, and the tree head covers %d records", id, head.Size)
	}
	hashes, err := c.hashReader(ctx, head).ReadHashes([]int64{ct.StoredHashIndex(0, id)})
	if err != nil {
		return Record{}, err
	}
	if hashes[0] != ct.RecordHash(text) {
		return Record{}, fmt.Errorf("answer is not what the log holds as record %d: %w", id, ErrInconsistent)
	}
	return Record{ID: id, Data: text, Head: head}, nil
}
