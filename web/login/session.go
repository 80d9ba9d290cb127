package login

import (
	"sync"
	"time"
)

// Sessions end when they are not used, and at the latest after a week.
const (
	maxIdle     = 12 * time.Hour
	maxAge      = 7 * 24 * time.Hour
	maxSessions = 1000
)

type session struct {
	user     string
	password string // hash at login: a changed password ends the session
	begun    time.Time
	used     time.Time
}

// sessions are kept in memory under the hash of the cookie: a restart of the
// program logs everybody out, and a memory dump holds no cookie.
type sessions struct {
	mu  sync.Mutex
	all map[string]*session
}

func (s *sessions) begin(user, password string, now time.Time) string {
	cookie := randomText()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = map[string]*session{}
	}
	for k, old := range s.all {
		if old.over(now) {
			delete(s.all, k)
		}
	}
	for len(s.all) >= maxSessions {
		oldest := ""
		for k, old := range s.all {
			if oldest == "" || old.used.Before(s.all[oldest].used) {
				oldest = k
			}
		}
		delete(s.all, oldest)
	}
	s.all[hashToken(cookie)] = &session{user, password, now, now}
	return cookie
}

func (s *session) over(now time.Time) bool {
	return now.Sub(s.used) > maxIdle || now.Sub(s.begun) > maxAge
}

// user returns whose session a cookie is. The password's hash must still be
// the one at login.
func (s *sessions) user(cookie string, access *Access, now time.Time) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := hashToken(cookie)
	ses, ok := s.all[key]
	if !ok {
		return "", false
	}
	if ses.over(now) || access.password(ses.user) != ses.password {
		delete(s.all, key)
		return "", false
	}
	ses.used = now
	return ses.user, true
}

func (s *sessions) end(cookie string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, hashToken(cookie))
}
