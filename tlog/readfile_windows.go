package tlog

import ct "golang.org/x/mod/sumdb/tlog"

// readInto reads a tile into buf, behind one spare byte.
func (d *TileDir) readInto(buf []byte, t ct.Tile) ([]byte, error) {
	data, err := d.read(t, maxDataTile)
	if err != nil {
		return buf, err
	}
	return append(append(buf[:0], 0), data...), nil
}
