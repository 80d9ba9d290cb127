package tlog

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"

	ct "golang.org/x/mod/sumdb/tlog"
)

// Tiles are 8 levels high everywhere in the checksum database protocol.
const (
	tileHeight = 8
	tileWidth  = 1 << tileHeight
)

// A tileCache keeps the hash tiles used last. All of them were verified.
type tileCache struct {
	mu    sync.Mutex
	tiles map[ct.Tile][]byte
}

const maxCachedTiles = 512 // of 8 kB at most

func (c *tileCache) get(t ct.Tile) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tiles[t]
}

func (c *tileCache) put(t ct.Tile, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tiles == nil {
		c.tiles = map[ct.Tile][]byte{}
	}
	for k := range c.tiles {
		if len(c.tiles) < maxCachedTiles {
			break
		}
		delete(c.tiles, k) // map order is random enough
	}
	c.tiles[t] = data
}

// hashReader reads proven hashes of a tree.
func (c *Client) hashReader(ctx context.Context, head TreeHead) ct.HashReader {
	return ct.HashReaderFunc(func(indexes []int64) ([]ct.Hash, error) {
		r := &tileReader{ctx: ctx, c: c}
		hashes, err := ct.TileHashReader(ct.Tree{N: head.Size, Hash: head.Hash}, r).ReadHashes(indexes)
		if err == nil || r.err != nil {
			return hashes, errors.Join(r.err, ctx.Err())
		}
		// The tiles don't add up. One in a cache may be damaged, or may have been
		// on its way while the log grew: ask once more, past all caches.
		r = &tileReader{ctx: ctx, c: c, fresh: true}
		hashes, err = ct.TileHashReader(ct.Tree{N: head.Size, Hash: head.Hash}, r).ReadHashes(indexes)
		if err != nil && r.err == nil {
			return nil, fmt.Errorf("%w of %d records of log %s: %w", ErrInconsistent, head.Size, c.Name(), err)
		}
		return hashes, r.err
	})
}

// A tileReader gets hash tiles from the caches or the server, unverified; what
// proved right it puts into the caches.
type tileReader struct {
	ctx   context.Context
	c     *Client
	fresh bool  // not from caches
	err   error // of the network
}

func (r *tileReader) Height() int { return tileHeight }

func (r *tileReader) ReadTiles(tiles []ct.Tile) ([][]byte, error) {
	data := make([][]byte, len(tiles))
	g, ctx := errgroup.WithContext(r.ctx)
	g.SetLimit(8)
	for i, t := range tiles {
		if !r.fresh {
			if data[i] = r.c.cached(t); data[i] != nil {
				continue
			}
		}
		g.Go(func() (err error) {
			data[i], err = r.c.fetchHashTile(ctx, t)
			return err
		})
	}
	r.err = g.Wait()
	return data, r.err
}

func (r *tileReader) SaveTiles(tiles []ct.Tile, data [][]byte) {
	for i, t := range tiles {
		r.c.tiles.put(t, data[i])
		if r.c.dir != nil {
			r.c.dir.save(t, data[i])
		}
	}
}

// cached returns a hash tile from memory or disk, nil if it is in neither.
func (c *Client) cached(t ct.Tile) []byte {
	if data := c.tiles.get(t); data != nil {
		return data
	}
	if c.dir != nil {
		if data, err := c.dir.read(t, maxHashTile); err == nil && len(data) == t.W*ct.HashSize {
			return data
		}
	}
	return nil
}

// fetchHashTile gets a hash tile from the server, unverified.
func (c *Client) fetchHashTile(ctx context.Context, t ct.Tile) ([]byte, error) {
	var data []byte
	err := retry(ctx, c.attempts, c.log, func() (err error) {
		data, err = c.getTile(ctx, t, maxHashTile)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading a hash tile of log %s: %w", c.Name(), err)
	}
	if len(data) < t.W*ct.HashSize {
		return nil, fmt.Errorf("reading a hash tile of log %s: %s is %d bytes long, not %d", c.Name(), t.Path(), len(data), t.W*ct.HashSize)
	}
	return data[:t.W*ct.HashSize], nil
}

// getTile gets a tile from the server. A server may drop a partial tile once
// the full one is there, which starts with the same records.
func (c *Client) getTile(ctx context.Context, t ct.Tile, max int64) ([]byte, error) {
	data, err := c.transport.getSoon(ctx, t.Path(), max)
	if err != nil && t.W < tileWidth && missing(err) {
		full := t
		full.W = tileWidth
		if data, err2 := c.transport.getSoon(ctx, full.Path(), max); err2 == nil {
			return data, nil
		}
	}
	return data, err
}
