package tlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	ct "golang.org/x/mod/sumdb/tlog"

	"example.org/upkeep/internal/httpget"
)

// A Tile is a row of records that were proven to be under the signed tree head.
type Tile struct {
	First   int64    // number of the first record
	Records [][]byte // texts; good until the tile was applied
}

// FollowConfig says which part of a log to read.
type FollowConfig struct {
	Client   *Client
	From     Edge     // of what was read before
	To       TreeHead // accepted by the client
	Parallel int      // tiles read at the same time, 0 means 16
}

// Follow reads all records from a position up to a tree head, in order.
//
// Only data tiles are read for the records themselves; their hashes are
// computed here. One hash tile of level 1 for every 256 data tiles, itself
// proven to be under the tree head, tells at once which data tile is wrong, so
// that one is fetched again and nothing unproven is ever handed on. At the end
// the tree hash computed from the data alone must be that of the tree head.
//
// Workers call prepare, several at a time; apply is then called in order, with
// what prepare made and the right edge after the tile. T values are reused.
func Follow[T any](ctx context.Context, cfg FollowConfig, prepare func(*Tile, *T), apply func(*Tile, *T, *Edge) error) error {
	c, edge := cfg.Client, cfg.From.Clone()
	if edge.Size > cfg.To.Size {
		return fmt.Errorf("following log %s: %d records were read before, and the tree head covers %d: %w", c.Name(), edge.Size, cfg.To.Size, ErrShrunk)
	}
	if edge.Size == cfg.To.Size && edge.Root() == cfg.To.Hash {
		return nil
	}
	if edge.Size > 0 {
		hash, err := c.treeHash(ctx, cfg.To, edge.Size)
		if err != nil {
			return fmt.Errorf("following log %s: %w", c.Name(), err)
		}
		if hash != edge.Root() {
			return fmt.Errorf("following log %s: the %d records read before are not the first ones under its tree head of %d records: %w", c.Name(), edge.Size, cfg.To.Size,
				&ForkError{Log: c.Name(), Kept: TreeHead{Size: edge.Size, Hash: edge.Root()}, Got: cfg.To})
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := &follower[T]{cfg: cfg, prepare: prepare, roots: &rootSource{c: c, head: cfg.To}}
	if err := f.run(ctx, edge, apply); err != nil {
		return fmt.Errorf("following log %s: %w", c.Name(), err)
	}
	if c.dir != nil {
		if err := c.dir.saveHead(cfg.To); err != nil { // as unimportant now as the tiles themselves
			c.log.Error("tree head can't be kept with the tiles", "err", err)
		}
	}
	return nil
}

type follower[T any] struct {
	cfg     FollowConfig
	prepare func(*Tile, *T)
	roots   *rootSource
	pool    sync.Pool
}

// A tileJob is one tile on its way through the workers.
type tileJob[T any] struct {
	tile    ct.Tile
	skip    int // records of the tile that were read before
	content tileData
	out     Tile
	value   T
	err     error
	done    chan struct{}
}

func (f *follower[T]) job(t ct.Tile, skip int) *tileJob[T] {
	j, ok := f.pool.Get().(*tileJob[T])
	if !ok {
		j = &tileJob[T]{done: make(chan struct{}, 1)}
	}
	j.tile, j.skip, j.err = t, skip, nil
	return j
}

func (f *follower[T]) run(ctx context.Context, edge Edge, apply func(*Tile, *T, *Edge) error) error {
	parallel := f.cfg.Parallel
	if parallel <= 0 {
		parallel = 16
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	work := make(chan *tileJob[T])
	order := make(chan *tileJob[T], 2*parallel) // the window
	for range parallel {
		wg.Go(func() {
			for j := range work {
				j.err = f.fullTile(ctx, j)
				j.done <- struct{}{}
			}
		})
	}
	first, end := edge.Size>>tileHeight, f.cfg.To.Size>>tileHeight
	skip := int(edge.Size % tileWidth)
	wg.Go(func() {
		defer close(work)
		defer close(order)
		for n, skip := first, skip; n < end; n, skip = n+1, 0 {
			j := f.job(ct.Tile{H: tileHeight, L: dataLevel, N: n, W: tileWidth}, skip)
			select {
			case order <- j:
			case <-ctx.Done():
				return
			}
			select {
			case work <- j:
			case <-ctx.Done():
				j.err = context.Cause(ctx)
				j.done <- struct{}{}
				return
			}
		}
	})
	for j := range order {
		<-j.done
		if j.err != nil {
			return j.err
		}
		if j.skip == 0 {
			edge.AddSubtree(tileHeight, j.content.root)
		} else {
			for _, h := range j.content.leaves[j.skip:] {
				edge.Add(h)
			}
			skip = 0
		}
		if err := apply(&j.out, &j.value, &edge); err != nil {
			return err
		}
		f.pool.Put(j)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if w := int(f.cfg.To.Size % tileWidth); w > 0 {
		return f.lastTile(ctx, ct.Tile{H: tileHeight, L: dataLevel, N: end, W: w}, skip, edge, apply)
	}
	if edge.Root() != f.cfg.To.Hash {
		return fmt.Errorf("%w: the hash computed from all records is another", ErrInconsistent)
	}
	return nil
}

// fullTile reads and checks a full tile.
func (f *follower[T]) fullTile(ctx context.Context, j *tileJob[T]) error {
	want, err := f.roots.root(ctx, j.tile.N)
	if err != nil {
		return err
	}
	err = f.read(ctx, j, func() bool { return j.content.root == want })
	if err == nil {
		j.out = Tile{j.tile.N<<tileHeight + int64(j.skip), j.content.records[j.skip:]}
		f.prepare(&j.out, &j.value)
	}
	return err
}

// lastTile reads the partial tile at the end, which is right if it makes the
// tree hash come out.
func (f *follower[T]) lastTile(ctx context.Context, t ct.Tile, skip int, edge Edge, apply func(*Tile, *T, *Edge) error) error {
	j := f.job(t, skip)
	var after Edge
	err := f.read(ctx, j, func() bool {
		after = edge.Clone()
		for _, h := range j.content.leaves[skip:] {
			after.Add(h)
		}
		return after.Root() == f.cfg.To.Hash
	})
	if err != nil {
		return err
	}
	j.out = Tile{edge.Size, j.content.records[skip:]}
	f.prepare(&j.out, &j.value)
	return apply(&j.out, &j.value, &after)
}

// tileAttempts bounds how often one tile is asked for before following stops
// (and starts again later from what was applied).
const tileAttempts = 8

// read gets a data tile from disk or the server until it is right.
func (f *follower[T]) read(ctx context.Context, j *tileJob[T], right func() bool) error {
	c := f.cfg.Client
	check := func() error {
		if err := j.content.parse(j.tile.W); err != nil {
			return err
		}
		if !right() {
			return ErrInconsistent
		}
		return nil
	}
	if c.dir != nil {
		var err error
		if j.content.buf, err = c.dir.readInto(j.content.buf, j.tile); err == nil {
			if err = check(); err == nil {
				return nil
			}
			c.log.Error("kept tile is damaged; fetching it again", "tile", j.tile.Path(), "err", err)
			c.dir.drop(j.tile)
		}
	}
	wrong := 0
	for attempt := 0; ; attempt++ {
		err := f.fetch(ctx, j)
		if err == nil {
			if err = check(); err == nil {
				if c.dir != nil {
					c.dir.save(j.tile, j.content.bytes())
				}
				return nil
			}
			wrong++
			c.log.Warn("data tile from the server is wrong", "log", c.Name(), "tile", j.tile.Path(), "err", err)
		} else if refused(err) {
			return f.refusal(ctx, j.tile, err)
		}
		if wrong == 3 || attempt == tileAttempts-1 || errors.Is(err, httpget.ErrTooLarge) || ctx.Err() != nil {
			return fmt.Errorf("data tile %s: %w", j.tile.Path(), err)
		}
		d := delay(attempt, err, rand.Float64())
		tellWait(c.log, d, err)
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
}

// fetch gets a data tile from the server, unchecked.
func (f *follower[T]) fetch(ctx context.Context, j *tileJob[T]) (err error) {
	c := f.cfg.Client
	if dir := c.transport.dir; dir != "" {
		j.content.buf, err = (&TileDir{dir: dir}).readInto(j.content.buf, j.tile)
		if err == nil || j.tile.W == tileWidth {
			return err
		}
	}
	data, err := c.getTile(ctx, j.tile, maxDataTile)
	if err == nil {
		j.content.set(data)
	}
	return err
}

// refusal tells a server without data tiles from one that has no tiles at all, and
// from one that lacks this tile only: a copy that is behind, or being made. That
// passes.
func (f *follower[T]) refusal(ctx context.Context, t ct.Tile, err error) error {
	c, hashes, first := f.cfg.Client, t, t
	hashes.L = 0
	first.N, first.W = 0, tileWidth
	passing := t.W < tileWidth && missing(err)
	if t.N > 0 {
		_, err2 := c.getTile(ctx, first, maxDataTile)
		passing = !refused(err2)
	}
	if passing {
		return fmt.Errorf("data tile %s, which the server should have: %w", t.Path(), err)
	}
	if _, err2 := c.getTile(ctx, hashes, maxHashTile); err2 == nil {
		return fmt.Errorf("%w, while it serves hash tiles: a module proxy that carries the checksum database only for lookups can't be followed; give the address of the database itself, or watch a list of modules instead (%w)", ErrNoDataTiles, err)
	}
	return err
}

// A rootSource gives the proven hashes of full data tiles.
type rootSource struct {
	c    *Client
	head TreeHead

	mu    sync.Mutex
	tiles map[int64]*rootTile
}

type rootTile struct {
	mu     sync.Mutex
	hashes []ct.Hash
}

func (r *rootSource) root(ctx context.Context, n int64) (ct.Hash, error) {
	r.mu.Lock()
	if r.tiles == nil {
		r.tiles = map[int64]*rootTile{}
	}
	t := r.tiles[n>>tileHeight]
	if t == nil {
		t = &rootTile{}
		r.tiles[n>>tileHeight] = t
		delete(r.tiles, n>>tileHeight-8) // far behind the window
	}
	r.mu.Unlock()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.hashes == nil {
		first := n &^ (tileWidth - 1)
		var indexes []int64
		for i := first; i < min(first+tileWidth, r.head.Size>>tileHeight); i++ {
			indexes = append(indexes, ct.StoredHashIndex(tileHeight, i))
		}
		hashes, err := r.c.hashReader(ctx, r.head).ReadHashes(indexes)
		if err != nil {
			return ct.Hash{}, err
		}
		t.hashes = hashes
	}
	return t.hashes[n%tileWidth], nil
}
