package notify

import (
	"errors"
	"fmt"

	"example.org/upkeep/supervisor/handoff"
)

// The names in a bundle.
const (
	sessionKey = "notify"
	storeKey   = "notify-store"
)

// Handoff puts the session into the bundle, for the program that takes this
// one's place. The session here goes on.
func (s *Session) Handoff(b *handoff.Bundle) error {
	saved, err := s.save()
	if err != nil {
		return err
	}
	return errors.Join(b.Add(sessionKey, s.conn), b.Put(sessionKey, saved))
}

// Attach goes on with the session of a bundle; it returns nil when there is
// none. The watchdog begins anew, since nobody listened meanwhile. As after
// Listen, messages are read once Attach was called.
func Attach(b *handoff.Bundle, opt Options) (*Session, error) {
	f := b.Take(sessionKey)
	if f == nil {
		return nil, nil
	}
	var saved saved
	if !b.Get(sessionKey, &saved) {
		f.Close()
		return nil, errors.New("going on with the service's notify socket: it was handed over without its state")
	}
	return resume(saved, f, opt)
}

// storedKey is one entry of a store in a bundle.
type storedKey struct {
	Name string `json:"name"`
	Poll bool   `json:"poll"`
}

func fileKey(i int) string { return fmt.Sprintf("%s/%d", storeKey, i) }

// Handoff puts what is kept into the bundle.
func (s *Store) Handoff(b *handoff.Bundle) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []storedKey
	for i, k := range s.kept {
		if err := b.Add(fileKey(i), k.File); err != nil {
			return err
		}
		keys = append(keys, storedKey{k.Name, k.poll})
	}
	return b.Put(storeKey, keys)
}

// Attach keeps what the store in the bundle kept.
func (s *Store) Attach(b *handoff.Bundle) error {
	var keys []storedKey
	b.Get(storeKey, &keys)
	for i, k := range keys {
		f := b.Take(fileKey(i))
		if f == nil {
			return fmt.Errorf("the descriptor %q that the service has kept was not handed over", k.Name)
		}
		if err := s.add(k.Name, f, k.Poll); err != nil {
			return err
		}
	}
	return nil
}
