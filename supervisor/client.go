package supervisor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"syscall"

	"example.org/upkeep/internal/httpget"
)

// Client is a supervisor at the other end of a control socket.
type Client struct {
	socket string
	hc     *http.Client
}

var _ Controller = (*Client)(nil)

// NewClient returns a client for a control socket. It connects when it is used.
func NewClient(socket string) *Client {
	tr := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	return &Client{socket, &http.Client{Transport: tr}}
}

// ErrNotRunning is returned when nobody listens on the control socket.
var ErrNotRunning = errors.New("upkeep does not run")

func (c *Client) request(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var r io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://upkeep/api/v1/"+path, r)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.hc.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody listens on %s", ErrNotRunning, c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no permission to use the control socket %s; it belongs to the user that runs upkeep", c.socket)
	case err != nil:
		return nil, fmt.Errorf("control socket %s: %w", c.socket, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	var e apiError
	if json.NewDecoder(io.LimitReader(resp.Body, maxActionBody)).Decode(&e) != nil || e.Error == "" {
		e.Error = resp.Status
	}
	if resp.StatusCode == http.StatusConflict {
		return nil, &RefusedError{e.Error}
	}
	return nil, fmt.Errorf("upkeep says: %s", httpget.Line(e.Error, 500))
}

// maxStatus bounds a status.
const maxStatus = 16 << 20

// Status asks for the status.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	resp, err := c.request(ctx, http.MethodGet, "status", nil)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&s); err != nil {
		return s, fmt.Errorf("reading the status: %w", err)
	}
	return s, nil
}

// Do asks for an action.
func (c *Client) Do(ctx context.Context, a Action) error {
	resp, err := c.request(ctx, http.MethodPost, "actions", a)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// Logs returns the service's last lines, none when they can't be had.
func (c *Client) Logs(n int) []string {
	resp, err := c.request(context.Background(), http.MethodGet, fmt.Sprintf("logs?n=%d", n), nil)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	var l apiLines
	if json.NewDecoder(io.LimitReader(resp.Body, maxStatus)).Decode(&l) != nil {
		return nil
	}
	return l.Lines
}

// Follow calls f with the status now and after each change, until f returns
// false, ctx ends or the supervisor does.
func (c *Client) Follow(ctx context.Context, f func(Status) bool) error {
	resp, err := c.request(ctx, http.MethodGet, "events", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	sc := bufio.NewScanner(resp.Body)
	sc.Buffer(nil, maxStatus)
	for sc.Scan() {
		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok {
			continue
		}
		var s Status
		if err := json.Unmarshal([]byte(data), &s); err != nil {
			return fmt.Errorf("reading the status: %w", err)
		}
		if !f(s) {
			return nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.New("upkeep ended")
}

// Watch sends after changes until ctx ends; the channel is closed when the
// supervisor is gone.
func (c *Client) Watch(ctx context.Context) <-chan struct{} {
	ch := make(chan struct{}, 1)
	go func() {
		defer close(ch)
		_ = c.Follow(ctx, func(Status) bool { // that it ended is what the closed channel says
			select {
			case ch <- struct{}{}:
			default: // told already
			}
			return true
		})
	}()
	return ch
}
