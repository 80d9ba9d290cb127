package tlog

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"sync"
)

// Data tiles are texts with much in common and are read by the thousand, so
// they are compressed for whoever takes that, quickly rather than well. Hash
// tiles can't be made smaller.

var gzips = sync.Pool{New: func() any {
	z, _ := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	return z
}}

// compress returns data as gzip, or as it is when that is no shorter.
func compress(data []byte) (out []byte, smaller bool) {
	var b bytes.Buffer
	z := gzips.Get().(*gzip.Writer)
	defer gzips.Put(z)
	z.Reset(&b)
	if _, err := z.Write(data); err != nil || z.Close() != nil || b.Len() >= len(data) {
		return data, false
	}
	return b.Bytes(), true
}

// acceptsGzip reports whether the other side takes gzip.
func acceptsGzip(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header["Accept-Encoding"], ","), ",") {
		coding, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		if strings.EqualFold(strings.TrimSpace(coding), "gzip") {
			q, ok := strings.CutPrefix(strings.ReplaceAll(params, " ", ""), "q=")
			return !ok || strings.Trim(q, "0.") != ""
		}
	}
	return false
}
