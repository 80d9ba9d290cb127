package goproxy

import (
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// files answers requests for file addresses. Only what a module proxy's folder
// has is served: regular files, whole. It is what is needed of
// [http.NewFileTransport], which links listings, ranges and types of files too.
type files struct{}

func (files) RoundTrip(req *http.Request) (*http.Response, error) {
	res := &http.Response{
		Proto: "HTTP/1.0", ProtoMajor: 1, Header: http.Header{}, Request: req, Close: true,
		Status: "404 Not Found", StatusCode: http.StatusNotFound, Body: http.NoBody,
	}
	if req.Body != nil {
		defer req.Body.Close()
	}
	if req.Method != http.MethodGet {
		res.Status, res.StatusCode = "405 Method Not Allowed", http.StatusMethodNotAllowed
		return res, nil
	}
	if strings.ContainsRune(req.URL.Path, 0) {
		return res, nil
	}
	f, err := os.Open(filepath.FromSlash(path.Clean("/" + req.URL.Path)))
	if errors.Is(err, fs.ErrNotExist) {
		return res, nil
	}
	if err != nil {
		return nil, err
	}
	fi, err := f.Stat()
	if err != nil {
		_ = f.Close() // only read
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		_ = f.Close() // only read
		return res, nil
	}
	res.Status, res.StatusCode = "200 OK", http.StatusOK
	res.ContentLength = fi.Size()
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(f, fi.Size()), f}
	return res, nil
}
