package discover

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"

	"github.com/miekg/dns"
)

// web asks over HTTPS (RFC 8484).
type web struct {
	url, addr string
	tls       *tls.Config
	hc        *http.Client
}

func (w *web) exchange(ctx context.Context, q *dns.Msg) (reply, error) {
	q = q.Copy()
	q.Id = 0 // for caches on the way
	wire, err := q.Pack()
	if err != nil {
		return reply{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(wire))
	if err != nil {
		return reply{}, err
	}
	const mime = "application/dns-message"
	req.Header.Set("Content-Type", mime)
	req.Header.Set("Accept", mime)
	req.Header.Set("User-Agent", "")
	resp, err := w.hc.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != mime {
		return reply{}, fmt.Errorf("%s answered %d with content type %.60q, not a DNS message", w.url, resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, 65536))
	if err != nil {
		return reply{}, err
	}
	r := new(dns.Msg)
	if err := r.Unpack(body); err != nil {
		return reply{}, fmt.Errorf("%s: %w", w.url, err)
	}
	if !answers(q, r, false) {
		return reply{}, fmt.Errorf("%s: the answer is to another question", w.url)
	}
	return reply{r, w.addr, "https", 1}, nil
}

func (w *web) close() { w.hc.CloseIdleConnections() }
