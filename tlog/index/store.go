package index

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"example.org/upkeep/tlog"
)

// Kinds of an index.
const (
	Following = "follow" // holds every module of a log, up to a position
	Watching  = "watch"  // holds chosen modules
)

// Options are the settings of a [Store].
type Options struct {
	Kind     string // Following (the default) or Watching; must be what the file was made with
	ReadOnly bool

	// SeenTime makes the time of a version that at which this process saw its
	// record. A small private log has too few commits in it to tell the time
	// from (see clock). Replicas will differ.
	SeenTime bool

	OnEvent func(Event) // called for every security event
	Logger  *slog.Logger
	Metrics prometheus.Registerer

	// How much is collected before it is merged, and how often the journal is
	// written; 0 for the defaults.
	MergeBytes    int64
	MergeModules  int // in one transaction
	JournalPeriod time.Duration
}

const (
	defaultMergeBytes    = 96 << 20
	defaultMergeModules  = 50_000 // bounds the memory of a merge
	defaultJournalPeriod = 3 * time.Second
)

// A Store is an index in a file.
type Store struct {
	opts    Options
	db      *bbolt.DB
	log     *slog.Logger
	metrics *metrics

	// Of the one writer.
	writing     sync.Mutex
	pos         position
	delta       *delta
	tools       map[string]toolchainRecord // not yet merged
	journaled   uint64                     // number of the newest journal entry
	journalSize int64                      // bytes in the journal
	polled      []string                   // modules polled, not yet stored
	events      []Event                    // not yet stored
	told        map[string]bool            // events told by this process

	mu      sync.RWMutex // held for writing only to swap the view
	view    *view
	changed chan struct{}
	queries sync.Pool

	agreed  atomic.Pointer[time.Time] // see Agree
	damaged atomic.Bool               // Verify found damage
	checks  sync.WaitGroup
	closing chan struct{}
	once    sync.Once
}

// A position is how far the log was processed. It is stored with what was processed.
type position struct {
	Edge     []byte // tlog.Edge
	Note     []byte // the signed tree head under which the last record was proven
	Accepted time.Time
	Clock    []byte
	Skipped  int64 // records that are not well-formed
	Merging  bool  // the blocks hold part of the journal

	// Of a watching index, which has no edge: the newest tree head.
	Size int64
	Hash []byte

	edge  tlog.Edge
	clock clock
}

func (p *position) encode() ([]byte, error) {
	var err error
	if p.Edge, err = p.edge.MarshalBinary(); err != nil {
		return nil, err
	}
	p.Clock = p.clock.append(nil)
	return json.Marshal(p)
}

func (p *position) decode(b []byte) error {
	if err := json.Unmarshal(b, p); err != nil {
		return err
	}
	if err := p.edge.UnmarshalBinary(p.Edge); err != nil {
		return err
	}
	_, err := p.clock.read(p.Clock)
	return err
}

var (
	bucketMeta    = []byte("meta")
	bucketModules = []byte("modules")
	bucketHosts   = []byte("hosts")
	bucketTools   = []byte("toolchains")
	bucketJournal = []byte("journal")
	bucketEvents  = []byte("events")
	bucketWatched = []byte("watched")

	keyFormat   = []byte("format")
	keyKind     = []byte("kind")
	keyPosition = []byte("position") // of the newest journal entry or merge
	keyView     = []byte("view")     // position of the newest merge
)

const format = "upkeep index 1"

// allocSize is by how much the file grows at least.
const allocSize = 1 << 20

// ErrLocked says that another process has the index open.
var ErrLocked = errors.New("index is in use by another process")

// mapSize is the address space for the file. A writer must never outgrow it
// while readers look at the map, since it would wait for them for ever.
func mapSize() int {
	if math.MaxInt == math.MaxInt32 || runtime.GOOS == "windows" { // where the file is made as large as the map
		return 512 << 20
	}
	return 32 << 30 & math.MaxInt // as a constant it must fit where it is never returned
}

// Open opens the index in file, creating it if there is none (unless
// read-only). A damaged file and one of another format are refused; all of the
// file is then checked while it is used already (see Verify).
func Open(file string, opts Options) (s *Store, err error) {
	if opts.Kind == "" {
		opts.Kind = Following
	}
	if opts.MergeBytes == 0 {
		opts.MergeBytes = defaultMergeBytes
	}
	if opts.MergeModules == 0 {
		opts.MergeModules = defaultMergeModules
	}
	if opts.JournalPeriod == 0 {
		opts.JournalPeriod = defaultJournalPeriod
	}
	st := &Store{opts: opts, log: opts.Logger, metrics: newMetrics(opts.Metrics), changed: make(chan struct{}), closing: make(chan struct{}), tools: map[string]toolchainRecord{}, told: map[string]bool{}}
	if st.log == nil {
		st.log = slog.Default()
	}
	st.delta = newDelta(st.conflict)
	defer func() {
		if err != nil {
			if st.db != nil {
				st.closeView()
				st.db.Close()
			}
			s, err = nil, fmt.Errorf("opening index %s: %w", file, err)
		}
	}()
	defer catch(&err)()
	if opts.ReadOnly {
		if _, err := os.Stat(file); err != nil {
			return nil, err
		}
	} else if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	size := mapSize()
	st.db, err = bbolt.Open(file, 0o644, &bbolt.Options{
		Timeout: time.Second, ReadOnly: opts.ReadOnly, PageSize: 4096,
		FreelistType: bbolt.FreelistMapType, InitialMmapSize: size, MaxSize: size - size/16,
	})
	if err != nil {
		return nil, openError(err)
	}
	st.db.AllocSize = allocSize
	if err := st.init(); err != nil {
		return nil, err
	}
	st.checks.Go(func() {
		if err := st.Verify(); err != nil && !errors.Is(err, errClosed) {
			st.log.Error("the index is no longer answered from", "file", file, "err", err)
		}
	})
	return st, nil
}

func openError(err error) error {
	if err.Error() == "timeout" {
		return ErrLocked
	}
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// init checks the file, or fills a new one, and takes up what a crash left.
func (s *Store) init() error {
	err := s.db.View(func(tx *bbolt.Tx) error {
		fi, err := os.Stat(s.db.Path())
		if err != nil {
			return err
		}
		if fi.Size() < tx.Size() {
			return fmt.Errorf("%w (the file is cut short)", ErrCorrupt)
		}
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return nil
		}
		if got := string(meta.Get(keyFormat)); got != format {
			return fmt.Errorf("its format is %q and this program reads %q: use the program that made it, or remove the file and let it be built again", got, format)
		}
		if got := string(meta.Get(keyKind)); got != s.opts.Kind {
			return fmt.Errorf("it was made in mode %q and is now opened in mode %q: give each mode a file of its own", got, s.opts.Kind)
		}
		if err := s.pos.decode(meta.Get(keyPosition)); err != nil {
			return fmt.Errorf("%w (position: %w)", ErrCorrupt, err)
		}
		if s.pos.Merging && s.opts.ReadOnly {
			return errors.New("a merge was interrupted: open it for writing once")
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !s.opts.ReadOnly {
		if err := s.prepare(); err != nil {
			return err
		}
	}
	return s.newView()
}

// prepare makes the buckets and reads the journal.
func (s *Store) prepare() error {
	err := s.db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketMeta, bucketModules, bucketHosts, bucketTools, bucketJournal, bucketEvents, bucketWatched} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		if meta.Get(keyFormat) != nil {
			return nil
		}
		pos, err := s.pos.encode()
		if err != nil {
			return err
		}
		return errors.Join(meta.Put(keyFormat, []byte(format)), meta.Put(keyKind, []byte(s.opts.Kind)),
			meta.Put(keyPosition, pos), meta.Put(keyView, pos))
	})
	if err != nil {
		return err
	}
	if err := s.readJournal(); err != nil {
		return err
	}
	if s.pos.Merging {
		return s.merge()
	}
	return nil
}

// Edge returns the right edge of the tree of records that were processed.
func (s *Store) Edge() tlog.Edge {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.pos.edge.Clone()
}

// LogTime returns the time as told by the log, 0 if unknown.
func (s *Store) LogTime() int64 {
	s.writing.Lock()
	defer s.writing.Unlock()
	return s.pos.clock.now
}

// Close closes the file.
func (s *Store) Close() error {
	s.once.Do(func() { close(s.closing) })
	s.checks.Wait()
	s.writing.Lock()
	defer s.writing.Unlock()
	s.closeView()
	if err := s.db.Close(); err != nil {
		return fmt.Errorf("closing the index: %w", err)
	}
	return nil
}
