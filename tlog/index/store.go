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
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"

	"example.org/upkeep/internal/durable"
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

	unverified  bool  // for tests: no check in the background
	compactFree int64 // bytes that are free when the file is written anew; 0 for the default
}

const (
	defaultMergeBytes    = 80 << 20 // twice, while one is merged and the next collected
	defaultMergeModules  = 50_000   // bounds the memory of a merge
	defaultJournalPeriod = 3 * time.Second
)

// A Store is an index in a file.
type Store struct {
	opts    Options
	file    string
	db      *database       // replaced under both locks
	lock    *durable.Locked // of the one writer
	readers *readers
	log     *slog.Logger
	metrics *metrics

	// Of the one writer.
	writing sync.Mutex
	batch
	behind      *merging // that goes on while records are read, nil for none
	spare       *delta   // of the merge before, empty
	journaled   uint64   // number of the newest journal entry
	journalSize int64    // bytes in the journal
	telling     sync.Mutex
	told        map[string]bool // events told by this process
	merged      time.Time       // when the last merge ended
	mergeTook   time.Duration

	compactAfter time.Time

	mu      sync.RWMutex // held for writing only to swap the view
	view    *view
	changed chan struct{}
	queries sync.Pool
	changes changes

	agreed  atomic.Pointer[agreement] // see Agree
	damaged atomic.Bool               // Verify found damage
	checks  sync.WaitGroup
	checked chan struct{} // closed when the check that Open starts has ended
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
	keySums     = []byte("sums")     // of all other buckets
)

const format = "upkeep index 3"

// allocSize is by how much the file grows at least.
const allocSize = 1 << 20

// ErrLocked says that another process has the index open: for writing, or at
// all where they can't share it.
var ErrLocked = errors.New("index is in use by another process")

// mapSize is the address space for the file. A writer must never outgrow it
// while readers look at the map, since it would wait for them for ever. On
// Windows the file is made as large as the map.
func mapSize() int {
	switch {
	case math.MaxInt == math.MaxInt32:
		return 512 << 20
	case runtime.GOOS == "windows":
		return 4 << 30 & math.MaxInt // as a constant it must fit where it is never returned
	}
	return 32 << 30 & math.MaxInt
}

// roomInMap is left for one transaction. (bbolt's own limit can't be less than
// the map on Windows.)
func roomInMap() int64 { return int64(mapSize()) / 8 }

// Open opens the index in file, creating it if there is none (unless
// read-only). A damaged file and one of another format are refused; all of the
// file is then checked while it is read already, and before anything is
// written (see Verify).
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
	if opts.compactFree == 0 {
		opts.compactFree = compactFree
	}
	st := &Store{opts: opts, file: file, log: opts.Logger, metrics: newMetrics(opts.Metrics), changed: make(chan struct{}), closing: make(chan struct{}), checked: make(chan struct{}), told: map[string]bool{}}
	if st.log == nil {
		st.log = slog.Default()
	}
	st.startBatch()
	defer func() {
		if err != nil {
			s, err = nil, fmt.Errorf("opening index %s: %w", file, errors.Join(err, st.release()))
		}
	}()
	defer catch(&err)()
	if opts.ReadOnly {
		if _, err := os.Stat(file); err != nil {
			return nil, err
		}
		err = st.openToRead()
	} else {
		err = st.openToWrite()
	}
	if err != nil {
		return nil, err
	}
	if opts.unverified {
		close(st.checked)
		return st, nil
	}
	st.checks.Go(func() {
		defer close(st.checked)
		if err := st.Verify(); err != nil && !errors.Is(err, errClosed) {
			st.log.Error("the index is no longer answered from", "file", file, "err", err)
		}
	})
	return st, nil
}

func (s *Store) openToWrite() (err error) {
	if err := os.MkdirAll(filepath.Dir(s.file), 0o755); err != nil {
		return err
	}
	if s.lock, err = durable.Lock(s.file + ".lock"); errors.Is(err, durable.ErrLocked) {
		return ErrLocked
	} else if err != nil {
		return err
	}
	if err := removeFresh(s.file); err != nil {
		return err
	}
	if s.readers, err = newReaders(s.file); err != nil {
		return err
	}
	if fi, err := os.Stat(s.file); errors.Is(err, fs.ErrNotExist) || err == nil && fi.Size() == 0 {
		if err := s.makeFile(); err != nil {
			return err
		}
	}
	if err := s.openPages(); err != nil {
		return err
	}
	if err := s.init(); err != nil {
		return err
	}
	if err := s.prepare(); err != nil {
		return err
	}
	return s.newView()
}

// openPages opens the file after what leads to its data was checked.
func (s *Store) openPages() (err error) {
	f, err := os.Open(s.file)
	if err == nil {
		err = checkNewest(f)
		f.Close()
	}
	if err != nil {
		return err
	}
	db, err := openDatabase(s.file, s.opts.ReadOnly)
	if db != nil {
		s.db = db
	}
	return err
}

// A database is an open file.
type database struct {
	*bbolt.DB
	pages *os.File       // the file, to read it page by page
	long  sync.WaitGroup // reading transactions that outlast Store.mu: Close must not find one
}

// openDatabase opens a file and lets others have it.
func openDatabase(file string, readOnly bool) (*database, error) {
	size := mapSize()
	var opened *os.File
	db, err := bbolt.Open(file, 0o644, &bbolt.Options{
		Timeout: time.Second, ReadOnly: readOnly, PageSize: pageSize,
		FreelistType: bbolt.FreelistMapType, InitialMmapSize: size,
		OpenFile: func(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
			if f, err = os.OpenFile(name, flag, perm); err == nil {
				opened = f
				shrinkable(f)
			}
			return f, err
		},
	})
	if err != nil {
		return nil, openError(err)
	}
	db.AllocSize = allocSize
	return &database{DB: db, pages: opened}, shareFile(opened, readOnly)
}

// checkNewest checks the pages of the newest state of a file, which may be empty.
func checkNewest(f *os.File) error {
	fi, err := f.Stat()
	if err != nil || fi.Size() == 0 {
		return err
	}
	_, _, err = checkPages(f, fi.Size(), 0, false, nil)
	return err
}

func openError(err error) error {
	if err.Error() == "timeout" {
		return ErrLocked
	}
	if errno := syscall.Errno(0); errors.As(err, &errno) {
		return err // a full disk, say: nothing that the file tells
	}
	return fmt.Errorf("%w: %w", ErrCorrupt, err)
}

// init checks what the file holds.
func (s *Store) init() error {
	return s.db.View(func(tx *bbolt.Tx) error {
		meta := tx.Bucket(bucketMeta)
		if meta == nil {
			return damaged("a part is missing")
		}
		if got := string(meta.Get(keyFormat)); got != format {
			return fmt.Errorf("its format is %q and this program reads %q: use the program that made it, or remove the file and let it be built again, from kept tiles or from the log", got, format)
		}
		if got := string(meta.Get(keyKind)); got != s.opts.Kind {
			return fmt.Errorf("it was made in mode %q and is now opened in mode %q: give each mode a file of its own", got, s.opts.Kind)
		}
		sums, err := getSums(tx)
		if err != nil {
			return err
		}
		for _, b := range []struct { // the others are checked when they are read
			name []byte
			sum  sum
		}{{bucketEvents, sums.Events}, {bucketWatched, sums.Watched}} {
			if err := b.sum.check(tx.Bucket(b.name)); err != nil {
				return err
			}
		}
		s.pos, err = getPosition(tx, keyPosition)
		return err
	})
}

// prepare takes up what a crash left.
func (s *Store) prepare() error {
	if err := s.readJournal(); err != nil {
		return err
	}
	if !s.pos.Merging {
		return nil
	}
	if err := s.verify(); err != nil {
		return err
	}
	return s.merge()
}

// makeFile makes a new file, under another name until it is whole.
func (s *Store) makeFile() error {
	file := s.file
	if target, err := filepath.EvalSymlinks(file); err == nil {
		file = target
	}
	fresh := file + freshSuffix
	db, err := openDatabase(fresh, false)
	if err == nil {
		err = db.Update(s.fill)
	}
	if db != nil {
		err = errors.Join(err, db.Close())
	}
	if err == nil {
		err = durable.Rename(fresh, file)
	}
	if err != nil {
		os.Remove(fresh)
		return fmt.Errorf("making a new one: %w", err)
	}
	return nil
}

// fill makes the buckets of a new file.
func (s *Store) fill(tx *bbolt.Tx) error {
	for _, b := range [][]byte{bucketMeta, bucketModules, bucketHosts, bucketTools, bucketJournal, bucketEvents, bucketWatched} {
		if _, err := tx.CreateBucket(b); err != nil {
			return err
		}
	}
	var sums sums
	meta := tx.Bucket(bucketMeta)
	return errors.Join(
		addFirstBlock(tx.Bucket(bucketModules), &sums.Modules), addFirstBlock(tx.Bucket(bucketHosts), &sums.Hosts),
		meta.Put(keyFormat, []byte(format)), meta.Put(keyKind, []byte(s.opts.Kind)),
		putPosition(tx, keyPosition, &s.pos), putPosition(tx, keyView, &s.pos), putSums(tx, sums))
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
	s.writing.Lock()
	defer s.writing.Unlock()
	s.checks.Wait()
	if err := s.release(); err != nil {
		return fmt.Errorf("closing the index: %w", err)
	}
	return nil
}

// release gives back what Open took.
func (s *Store) release() error {
	s.closeView()
	var errs []error
	errs = append(errs, s.readers.close())
	if s.db != nil {
		errs = append(errs, s.db.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Unlock())
		s.lock = nil
	}
	return errors.Join(errs...)
}
