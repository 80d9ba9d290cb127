package fetch

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"

	"example.org/upkeep/builder/spec"
)

const (
	detailsTimeout = 10 * time.Second
	maxAgreed      = 16
)

// An Agreement is another builder of which the builder says that it came to the
// same bytes. It is the builder's word, to be looked up in the other's log.
type Agreement struct {
	Name  string // of the other's log
	Index int64  // number of the record there, -1 = not said
}

// details asks the builder for what it says of a build beyond the log's
// record, which other builders of these formats don't: no answer is fine, one
// that contradicts the record is not.
func (f *Fetcher) details(ctx context.Context, p *Proof) error {
	ctx, cancel := context.WithTimeout(ctx, detailsTimeout)
	defer cancel()
	url := f.base + "/" + p.Record.Spec.String() + p.Record.Sum + "/record"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil
	}
	resp, err := f.hc.Do(req)
	if err != nil {
		return nil
	}
	defer resp.Body.Close()
	line, err := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
	if err != nil || resp.StatusCode != http.StatusOK {
		return nil
	}
	if !bytes.Equal(bytes.TrimSpace(line), bytes.TrimSpace(p.Record.Line())) {
		return &VerifyError{Kind: RecordMismatch, Err: fmt.Errorf("the builder's record of %s is not the one in its log: nothing is downloaded", p.Record.Spec)}
	}
	if text := resp.Header.Get("X-Upkeep-Sha256"); text != "" {
		sum, err := hex.DecodeString(text)
		if err != nil || len(sum) != 32 || spec.Sum([32]byte(sum)) != p.Record.Sum {
			return &VerifyError{Kind: RecordMismatch, Err: fmt.Errorf("the SHA-256 that the builder names for %s does not begin as the sum in its log: nothing is downloaded", p.Record.Spec)}
		}
		p.SHA256 = hex.EncodeToString(sum)
	}
	p.Agreed = parseAgreed(resp.Header.Get("X-Upkeep-Agreed"))
	return nil
}

// parseAgreed reads names of logs with record numbers: "a.example.org 17, b.example.org -1".
func parseAgreed(text string) (list []Agreement) {
	for part := range strings.SplitSeq(text, ",") {
		name, number, _ := strings.Cut(strings.TrimSpace(part), " ")
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n < -1 || len(name) > 255 || module.CheckImportPath(name) != nil || len(list) == maxAgreed {
			continue
		}
		list = append(list, Agreement{name, n})
	}
	return list
}
