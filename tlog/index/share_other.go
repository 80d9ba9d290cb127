//go:build !(linux || darwin || freebsd)

package index

import "os"

// Elsewhere bbolt's own lock keeps readers out while another process writes.

func newReaders(string) (*readers, error) { return &readers{}, nil }
func (r *readers) there() (bool, error)   { return false, nil }
func shareFile(*os.File, bool) error      { return nil }

func (s *Store) openToRead() error {
	if err := s.openPages(); err != nil {
		return err
	}
	if err := s.init(); err != nil {
		return err
	}
	return s.newView()
}
