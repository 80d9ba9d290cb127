// Package goproxy asks Go module proxies for versions, go.mod files and zips.
//
// Nothing that it returns is trusted: whoever uses a version, a go.mod file or
// a zip checks it against the checksum database. Answers are bounded in size.
// The address of a proxy is never built in: it comes from the configuration,
// from GOPROXY or from `go env` (see [FromEnv]).
//
// Protocol: https://go.dev/ref/mod#goproxy-protocol
package goproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/internal/httpget"
)

// Limits on answers, in bytes. A zip's limit is that of the go command.
const (
	MaxList  = 16 << 20
	MaxInfo  = 1 << 20
	MaxGoMod = 16 << 20
	MaxZip   = 500 << 20
)

// ErrNotFound is returned when every proxy asked says that the module or
// version does not exist.
var ErrNotFound = errors.New("not found")

// Info is what a proxy says of one version.
type Info struct {
	Version string
	Time    time.Time
}

// Client asks the proxies of one GOPROXY list, in order.
type Client struct {
	hc      *http.Client
	proxies []proxy
	blocked string // "direct" or "off" behind the last proxy
}

type proxy struct {
	url     string // without a trailing slash
	anyFail bool   // separated from the next by "|": fall through on any error
}

// New returns a client for a list in the form of GOPROXY. The elements
// "direct" and "off" end the list: upkeep never fetches from version control.
func New(list string, hc *http.Client) (*Client, error) {
	c := &Client{hc: hc}
	for rest := list; rest != ""; {
		elem, anyFail := rest, false
		if i := strings.IndexAny(rest, ",|"); i >= 0 {
			elem, anyFail, rest = rest[:i], rest[i] == '|', rest[i+1:]
		} else {
			rest = ""
		}
		elem = strings.TrimSpace(elem)
		switch elem {
		case "":
			continue
		case "direct", "off":
			c.blocked = elem
			rest = ""
			continue
		}
		u, err := url.Parse(elem)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" && u.Scheme != "file" || u.Scheme != "file" && u.Host == "" {
			return nil, fmt.Errorf("module proxy %q is not an http, https or file URL", redacted(elem))
		}
		if u.Scheme == "file" {
			c.withFiles()
		}
		c.proxies = append(c.proxies, proxy{strings.TrimSuffix(elem, "/"), anyFail})
	}
	if len(c.proxies) == 0 {
		return nil, fmt.Errorf("module proxy list %q names no proxy; upkeep needs one, it does not fetch from version control", list)
	}
	return c, nil
}

func (c *Client) withFiles() {
	tr, ok := c.hc.Transport.(*http.Transport)
	if !ok || tr == nil {
		tr = http.DefaultTransport.(*http.Transport)
	}
	tr = tr.Clone()
	tr.RegisterProtocol("file", files{})
	hc := *c.hc
	hc.Transport = tr
	c.hc = &hc
}

// URLs returns the addresses of the proxies, in the order in which they are
// asked. They may hold passwords.
func (c *Client) URLs() []string {
	urls := make([]string, len(c.proxies))
	for i, p := range c.proxies {
		urls[i] = p.url
	}
	return urls
}

// String is the addresses of the proxies without passwords.
func (c *Client) String() string { return shown(c.URLs()) }

func shown(urls []string) string {
	list := make([]string, len(urls))
	for i, u := range urls {
		list[i] = redacted(u)
	}
	return strings.Join(list, ", ")
}

// redacted is a URL without its password; of what is no URL it shows nothing.
func redacted(s string) string {
	u, err := url.Parse(s)
	if err != nil {
		return "(malformed)"
	}
	return u.Redacted()
}

// List returns the tagged versions of a module, in the proxy's order. A module
// without tags has an empty list.
func (c *Client) List(ctx context.Context, path string) ([]string, error) {
	esc, err := module.EscapePath(path)
	if err != nil {
		return nil, err
	}
	data, err := c.get(ctx, path, esc+"/@v/list", MaxList)
	if err != nil {
		return nil, err
	}
	var versions []string
	for line := range strings.Lines(string(data)) {
		// The protocol allows a time after the version.
		f := strings.Fields(line)
		if len(f) == 0 || module.Check(path, f[0]) != nil {
			continue
		}
		versions = append(versions, f[0])
	}
	return versions, nil
}

// Latest returns the version that the proxy takes for the newest, which for an
// untagged module is a pseudo-version.
func (c *Client) Latest(ctx context.Context, path string) (Info, error) {
	esc, err := module.EscapePath(path)
	if err != nil {
		return Info{}, err
	}
	return c.info(ctx, path, esc+"/@latest")
}

// Info returns the canonical version and time of a version.
func (c *Client) Info(ctx context.Context, path, version string) (Info, error) {
	file, err := versionFile(path, version, ".info")
	if err != nil {
		return Info{}, err
	}
	return c.info(ctx, path+"@"+version, file)
}

func (c *Client) info(ctx context.Context, what, file string) (Info, error) {
	data, err := c.get(ctx, what, file, MaxInfo)
	if err != nil {
		return Info{}, err
	}
	var info Info
	if err := json.Unmarshal(data, &info); err != nil {
		return Info{}, fmt.Errorf("module proxy's information on %s: %w", what, err)
	}
	if path, _, _ := strings.Cut(what, "@"); module.Check(path, info.Version) != nil {
		return Info{}, fmt.Errorf("module proxy's information on %s names the version %q, which is none of this module", what, httpget.Line(info.Version, 100))
	}
	return info, nil
}

// GoMod returns the go.mod file of a version, not yet checked against the
// checksum database.
func (c *Client) GoMod(ctx context.Context, path, version string) ([]byte, error) {
	file, err := versionFile(path, version, ".mod")
	if err != nil {
		return nil, err
	}
	return c.get(ctx, path+"@"+version, file, MaxGoMod)
}

// Zip copies the zip of a version to w, not yet checked against the checksum
// database, and fails when it is longer than max bytes.
func (c *Client) Zip(ctx context.Context, path, version string, w io.Writer, max int64) error {
	file, err := versionFile(path, version, ".zip")
	if err != nil {
		return err
	}
	what := path + "@" + version
	body, err := c.open(ctx, what, file)
	if err != nil {
		return err
	}
	defer body.Close()
	n, err := io.Copy(w, io.LimitReader(body, max+1))
	if err != nil {
		return fmt.Errorf("downloading the zip of %s: %w", what, err)
	}
	if n > max {
		return fmt.Errorf("downloading the zip of %s: %w (%d bytes)", what, httpget.ErrTooLarge, max)
	}
	return nil
}

func versionFile(path, version, ext string) (string, error) {
	escPath, err := module.EscapePath(path)
	if err != nil {
		return "", err
	}
	escVersion, err := module.EscapeVersion(version)
	if err != nil {
		return "", err
	}
	return escPath + "/@v/" + escVersion + ext, nil
}

func (c *Client) get(ctx context.Context, what, file string, max int64) ([]byte, error) {
	body, err := c.open(ctx, what, file)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, max+1))
	if err != nil {
		return nil, fmt.Errorf("asking the module proxy for %s: %w", file, err)
	}
	if int64(len(data)) > max {
		return nil, fmt.Errorf("asking the module proxy for %s: %w (%d bytes)", file, httpget.ErrTooLarge, max)
	}
	return data, nil
}

func (c *Client) open(ctx context.Context, what, file string) (io.ReadCloser, error) {
	var errs []error
	for _, p := range c.proxies {
		body, err := httpget.Open(ctx, c.hc, p.url+"/"+file)
		if err == nil {
			return body, nil
		}
		errs = append(errs, err)
		var se *httpget.StatusError
		if missing := errors.As(err, &se) && se.NotFound(); !missing && !p.anyFail || ctx.Err() != nil {
			return nil, fmt.Errorf("asking the module proxy: %w", errors.Join(errs...))
		}
	}
	var se *httpget.StatusError
	if errors.As(errs[len(errs)-1], &se) && se.NotFound() {
		return nil, &MissingError{What: what, Proxies: c.URLs(), Text: se.Text}
	}
	return nil, fmt.Errorf("asking the module proxy: %w", errors.Join(errs...))
}

// A MissingError says that no proxy knows a module or version. It is an [ErrNotFound].
type MissingError struct {
	What    string   // path or path@version
	Proxies []string // where it was asked for
	Text    string   // the last proxy's own words, one line
}

func (e *MissingError) Error() string {
	s := fmt.Sprintf("%s not found at the module proxy %s", e.What, shown(e.Proxies))
	if e.Text != "" {
		s += " (" + e.Text + ")"
	}
	return s
}

func (e *MissingError) Is(target error) bool { return target == ErrNotFound }
