package goproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"

	"example.org/upkeep/internal/httpget"
)

// ErrNoProxy is returned by [FromEnv] when nothing names a module proxy.
var ErrNoProxy = errors.New("no module proxy is configured: set it in the configuration or in the environment variable GOPROXY")

// Env is where this machine takes modules from.
type Env struct {
	GOPROXY string
	GOSUMDB string
}

// FromEnv returns what the environment variables GOPROXY and GOSUMDB say and
// asks an installed go command (`go env`) for those that are not set.
func FromEnv(ctx context.Context) (Env, error) {
	e := Env{os.Getenv("GOPROXY"), os.Getenv("GOSUMDB")}
	if e.GOPROXY == "" || e.GOSUMDB == "" {
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		defer cancel()
		var asked Env
		out, err := exec.CommandContext(ctx, "go", "env", "-json", "GOPROXY", "GOSUMDB").Output()
		if err == nil {
			err = json.Unmarshal(out, &asked)
		}
		if err != nil && e.GOPROXY == "" {
			return e, ErrNoProxy
		}
		if e.GOPROXY == "" {
			e.GOPROXY = asked.GOPROXY
		}
		if e.GOSUMDB == "" {
			e.GOSUMDB = asked.GOSUMDB
		}
	}
	if e.GOPROXY == "" {
		return e, ErrNoProxy
	}
	if e.GOSUMDB == "" {
		e.GOSUMDB = publicSumDB
	}
	return e, nil
}

// The public checksum database and its key, as the go command knows them.
const (
	publicSumDB    = "sum.golang.org"
	publicSumDBKey = "sum.golang.org+033de0ae+Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8"
)

// A SumDB is a checksum database as GOSUMDB names it.
type SumDB struct {
	Name string
	Key  string // verifier key
	URL  string // where it answers when no proxy carries it
}

// ParseSumDB reads the value of GOSUMDB: `name`, `name+hash+key` or
// `name+hash+key url` (https://go.dev/ref/mod#environment-variables).
func ParseSumDB(gosumdb string) (SumDB, error) {
	f := strings.Fields(gosumdb)
	if len(f) == 0 || f[0] == "off" {
		return SumDB{}, fmt.Errorf("GOSUMDB is %q: upkeep verifies every version in a checksum database and does not run without one", gosumdb)
	}
	if len(f) > 2 {
		return SumDB{}, fmt.Errorf("GOSUMDB %q has more than a key and a URL", gosumdb)
	}
	key := f[0]
	if key == publicSumDB {
		key = publicSumDBKey
	}
	v, err := note.NewVerifier(key)
	if err != nil {
		return SumDB{}, fmt.Errorf("GOSUMDB %q is neither %s nor a verifier key (name+hash+key): %w", f[0], publicSumDB, err)
	}
	db := SumDB{Name: v.Name(), Key: key, URL: "https://" + v.Name()}
	if len(f) == 2 {
		db.URL = strings.TrimSuffix(f[1], "/")
	}
	return db, nil
}

// SumDBURL returns where to ask the checksum database: through the first proxy
// that says it carries it, as the go command does, else directly.
func (c *Client) SumDBURL(ctx context.Context, db SumDB) (url string, err error) {
	for _, p := range c.proxies {
		base := p.url + "/sumdb/" + db.Name
		_, err := httpget.Get(ctx, c.hc, base+"/supported", 4096)
		if err == nil {
			return base, nil
		}
		var se *httpget.StatusError
		if missing := errors.As(err, &se) && (se.NotFound() || se.Code/100 == 4 && !se.Temporary()); !missing && !p.anyFail {
			return "", fmt.Errorf("asking the module proxy whether it carries the checksum database %s: %w", db.Name, err)
		}
	}
	return db.URL, nil
}
