package login

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"example.org/upkeep/internal/durable"
)

// An Access says who may use the pages. It is the content of the file that
// "upkeep passwd" and "upkeep token" write.
type Access struct {
	Users  []User  `json:"users"`
	Tokens []Token `json:"tokens,omitempty"`
}

// A User may log in.
type User struct {
	Name     string `json:"name"`
	Password string `json:"password"` // hash, see [HashPassword]
}

// A Token is for programs. The token itself is shown once and not kept.
type Token struct {
	Name    string    `json:"name"`
	Scope   Scope     `json:"scope"`
	Hash    string    `json:"hash"` // SHA-256, hex; the token has 256 bits of its own
	Created time.Time `json:"created"`
}

// A Scope is what a token may do.
type Scope string

// The scopes.
const (
	ScopeRead    Scope = "read"    // see everything
	ScopeAct     Scope = "act"     // see everything, ask for actions
	ScopeMetrics Scope = "metrics" // fetch /metrics
	ScopeNotify  Scope = "notify"  // have new versions looked for, by POST /notify
)

// Scopes are all scopes.
var Scopes = []Scope{ScopeRead, ScopeAct, ScopeMetrics, ScopeNotify}

const (
	maxAccess   = 1 << 20
	tokenPrefix = "upkeep_"
)

var nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._@-]{0,39}$`)

// CheckName says what is wrong with the name of a user or token.
func CheckName(name string) error {
	if !nameRE.MatchString(name) {
		return fmt.Errorf("the name %.60q is not 1 to 40 letters, digits, dots, dashes, underscores or at signs", name)
	}
	return nil
}

// ReadAccess reads the file; one that does not exist has nobody in it. It
// fails closed: with an unreadable file nobody gets in.
func ReadAccess(file string) (Access, error) {
	fi, err := os.Stat(file)
	if errors.Is(err, fs.ErrNotExist) {
		return Access{}, nil
	}
	if err != nil {
		return Access{}, fmt.Errorf("reading who may use the web page: %w", err)
	}
	if fi.Size() > maxAccess {
		return Access{}, fmt.Errorf("%s is %d bytes long; at most %d", file, fi.Size(), maxAccess)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return Access{}, fmt.Errorf("reading who may use the web page: %w", err)
	}
	a, err := parseAccess(data)
	if err != nil {
		return Access{}, fmt.Errorf("%s: %w; move it away and set the passwords again with \"upkeep passwd\"", file, err)
	}
	return a, nil
}

func parseAccess(data []byte) (Access, error) {
	var a Access
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&a); err != nil {
		return Access{}, err
	}
	seen := map[string]bool{}
	for _, u := range a.Users {
		if err := CheckName(u.Name); err != nil {
			return Access{}, err
		}
		if _, _, _, err := parseHash(u.Password); err != nil {
			return Access{}, fmt.Errorf("user %s: %w", u.Name, err)
		}
		if seen["u "+u.Name] {
			return Access{}, fmt.Errorf("user %s is there twice", u.Name)
		}
		seen["u "+u.Name] = true
	}
	for _, t := range a.Tokens {
		if err := CheckName(t.Name); err != nil {
			return Access{}, err
		}
		if sum, err := hex.DecodeString(t.Hash); err != nil || len(sum) != sha256.Size {
			return Access{}, fmt.Errorf("token %s: the hash is not a SHA-256 in hex", t.Name)
		}
		if !slices.Contains(Scopes, t.Scope) {
			return Access{}, fmt.Errorf("token %s: there is no scope %q", t.Name, t.Scope)
		}
		if seen["t "+t.Name] {
			return Access{}, fmt.Errorf("token %s is there twice", t.Name)
		}
		seen["t "+t.Name] = true
	}
	return a, nil
}

// Write writes the file, for its owner only.
func (a Access) Write(file string) error {
	data, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return fmt.Errorf("writing who may use the web page: %w", err)
	}
	return durable.WriteFile(file, append(data, '\n'), 0o600)
}

// SetUser adds a user or changes the user's password.
func (a *Access) SetUser(name, password string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	hash, err := HashPassword(password)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(a.Users, func(u User) bool { return u.Name == name }); i >= 0 {
		a.Users[i].Password = hash
		return nil
	}
	a.Users = append(a.Users, User{name, hash})
	return nil
}

// RemoveUser removes a user.
func (a *Access) RemoveUser(name string) error {
	n := len(a.Users)
	a.Users = slices.DeleteFunc(a.Users, func(u User) bool { return u.Name == name })
	if len(a.Users) == n {
		return fmt.Errorf("there is no user %q", name)
	}
	return nil
}

// AddToken makes a token and returns it; it cannot be had a second time.
func (a *Access) AddToken(name string, scope Scope, now time.Time) (string, error) {
	if err := CheckName(name); err != nil {
		return "", err
	}
	if !slices.Contains(Scopes, scope) {
		return "", fmt.Errorf("there is no scope %q; there are %s, %s, %s and %s", scope, ScopeRead, ScopeAct, ScopeMetrics, ScopeNotify)
	}
	if slices.ContainsFunc(a.Tokens, func(t Token) bool { return t.Name == name }) {
		return "", fmt.Errorf("there is a token %q already; remove it first", name)
	}
	token := tokenPrefix + randomText()
	a.Tokens = append(a.Tokens, Token{name, scope, hashToken(token), now.UTC().Truncate(time.Second)})
	return token, nil
}

// RemoveToken removes a token.
func (a *Access) RemoveToken(name string) error {
	n := len(a.Tokens)
	a.Tokens = slices.DeleteFunc(a.Tokens, func(t Token) bool { return t.Name == name })
	if len(a.Tokens) == n {
		return fmt.Errorf("there is no token %q", name)
	}
	return nil
}

// token returns the token that a request carries.
func (a *Access) token(text string) (Token, bool) {
	if !strings.HasPrefix(text, tokenPrefix) {
		return Token{}, false
	}
	sum, found := hashToken(text), -1
	for i, t := range a.Tokens {
		if subtle.ConstantTimeCompare([]byte(t.Hash), []byte(sum)) == 1 {
			found = i
		}
	}
	if found < 0 {
		return Token{}, false
	}
	return a.Tokens[found], true
}

// password returns the hash of a user's password. For an unknown user it is
// one that nothing fits, so that both take the same time.
func (a *Access) password(name string) string {
	hash := nobody
	for _, u := range a.Users {
		if u.Name == name {
			hash = u.Password
		}
	}
	return hash
}

// nobody is a hash with the usual parameters and an impossible sum.
var nobody = fmt.Sprintf("$argon2id$v=19$m=%d,t=%d,p=%d$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
	defaultParams.memory, defaultParams.time, defaultParams.threads)

func hashToken(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

func randomText() string {
	b := make([]byte, 32)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return base64.RawURLEncoding.EncodeToString(b)
}
