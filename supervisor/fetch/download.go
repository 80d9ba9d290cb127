package fetch

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/internal/buildinfo"
	"example.org/upkeep/internal/durable"
	"example.org/upkeep/internal/httpget"
)

const (
	stallTimeout = 30 * time.Second // without a single byte
	maxResumes   = 5
	maxBinary    = 4 << 30 // larger than any program; a record that says more is a lie
)

// Download writes the binary of a verified record to dest, with mode 0755. It
// stands there only when its size, its sum and the build information inside
// are the record's; until then it has another name and cannot be executed.
// progress (which may be nil) counts bytes of the unpacked binary.
func (f *Fetcher) Download(ctx context.Context, p Proof, dest string, progress func(done, total int64)) error {
	err := f.download(ctx, p, dest, progress)
	f.m.result(err)
	return err
}

func (f *Fetcher) download(ctx context.Context, p Proof, dest string, progress func(done, total int64)) (err error) {
	r := p.Record
	if err := r.Check(); err != nil {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	if r.Size > maxBinary {
		return &VerifyError{Kind: BadSize, Err: fmt.Errorf("the record of %s says that it is %d bytes long, more than any program", r.Spec, r.Size)}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.Timeout.D(), fmt.Errorf("downloading %s took longer than timeout (%s)", r.Spec, f.cfg.Timeout))
	defer cancel()
	file, err := os.CreateTemp(filepath.Dir(dest), filepath.Base(dest)+".tmp-*") // mode 0600: nobody can execute it
	if err != nil {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	tmp := file.Name()
	defer func() {
		if err != nil {
			file.Close()
			os.Remove(tmp)
		}
	}()
	if err := f.fill(ctx, r, file, progress); err != nil {
		return err
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	if err := checkFile(file, p); err != nil {
		return err
	}
	if err := file.Chmod(0o755); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	if err := file.Sync(); err != nil {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	if err := file.Close(); err != nil {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	if err := durable.Rename(tmp, dest); err != nil {
		return fmt.Errorf("downloading %s: %w", r.Spec, err)
	}
	return nil
}

// checkFile verifies a binary against a record: size, sum and build information.
func checkFile(file *os.File, p Proof) error {
	r := p.Record
	d := spec.NewDigest()
	n, err := io.Copy(d, io.LimitReader(file, r.Size+1))
	if err != nil {
		return fmt.Errorf("verifying %s: %w", r.Spec, err)
	}
	if n != r.Size {
		return &VerifyError{Kind: BadSize, Err: fmt.Errorf("the binary of %s is not %d bytes long, as its record says", r.Spec, r.Size)}
	}
	if d.Sum() != r.Sum {
		return &VerifyError{Kind: BadSum, Err: fmt.Errorf("the binary of %s has the sum %s, and the log's record says %s: it is not what was built, and is not installed", r.Spec, d.Sum(), r.Sum)}
	}
	if p.SHA256 != "" && d.Hex() != p.SHA256 {
		return &VerifyError{Kind: BadSum, Err: fmt.Errorf("the binary of %s has the SHA-256 %s, and the builder named %s: it is not installed", r.Spec, d.Hex(), p.SHA256)}
	}
	bi, err := buildinfo.Read(file, r.Size)
	if err == nil {
		err = spec.CheckBuildInfo(bi, r.Spec)
	}
	if err != nil {
		return &VerifyError{Kind: BuildInfo, Err: fmt.Errorf("the binary recorded for %s does not say that it is that program: %w", r.Spec, err)}
	}
	return nil
}

// fill copies the binary to w, preferring the compressed form, and stops at the
// first byte beyond the record's size.
func (f *Fetcher) fill(ctx context.Context, r spec.Record, w io.Writer, progress func(done, total int64)) error {
	url := f.base + "/" + r.Spec.String() + r.Sum + "/" + r.FileName()
	// A gzip file of incompressible data is a little larger than the data.
	body := &resuming{ctx: ctx, hc: f.hc, url: url + ".gz", left: r.Size + r.Size/100 + 64<<10}
	defer body.Close()
	if progress != nil {
		progress(0, r.Size) // the first byte may have to be waited for
	}
	err := body.open()
	var se *httpget.StatusError
	plain := errors.As(err, &se) && se.NotFound()
	if plain {
		body.url, body.left = url, r.Size+1
		err = body.open()
	}
	if err != nil {
		return f.downloadError(ctx, r, err)
	}
	var src io.Reader = body
	if !plain {
		gz, err := gzip.NewReader(body)
		if err != nil {
			return f.downloadError(ctx, r, fmt.Errorf("it is not a gzip file: %w", err))
		}
		gz.Multistream(false)
		src = gz
	}
	done := int64(0)
	buf := make([]byte, 64<<10)
	for {
		n, err := src.Read(buf)
		if done += int64(n); done > r.Size {
			return &VerifyError{Kind: BadSize, Err: fmt.Errorf("the builder sends more than the %d bytes that the record of %s says", r.Size, r.Spec)}
		}
		if _, err := w.Write(buf[:n]); err != nil {
			return fmt.Errorf("downloading %s: %w", r.Spec, err)
		}
		if progress != nil && n > 0 {
			progress(done, r.Size)
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return f.downloadError(ctx, r, err)
		}
	}
	if done < r.Size {
		return &VerifyError{Kind: BadSize, Err: fmt.Errorf("the builder sends %d bytes, and the record of %s says %d", done, r.Spec, r.Size)}
	}
	return nil
}

func (f *Fetcher) downloadError(ctx context.Context, r spec.Record, err error) error {
	if errors.Is(err, errTooLong) {
		return &VerifyError{Kind: BadSize, Err: fmt.Errorf("the builder sends more for %s than its record of %d bytes allows", r.Spec, r.Size)}
	}
	if ctx.Err() != nil && context.Cause(ctx) != nil {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return fmt.Errorf("downloading %s: %w", r.Spec, err)
}

// resumeDelay is the wait before a download goes on; tests shorten it.
var resumeDelay = 300 * time.Millisecond

var errStalled = fmt.Errorf("no byte came for %s", stallTimeout)

var errTooLong = errors.New("longer than allowed")

var errChanged = errors.New("the builder serves another file, or another part of it, than before the connection broke; try again")

// resuming reads a file over HTTP and goes on where it was when the connection
// breaks or stalls.
type resuming struct {
	ctx     context.Context
	hc      *http.Client
	url     string
	left    int64 // bytes still allowed
	off     int64
	etag    string
	resumes int

	body   io.ReadCloser
	cancel context.CancelCauseFunc
	cause  func() error
}

func (r *resuming) open() error {
	r.Close()
	ctx, cancel := context.WithCancelCause(r.ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url, nil)
	if err != nil {
		cancel(nil)
		return err
	}
	// The file is a gzip file itself; the transport must not unpack anything.
	req.Header.Set("Accept-Encoding", "identity")
	if r.off > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(r.off, 10)+"-")
		if r.etag != "" {
			req.Header.Set("If-Range", r.etag)
		}
	}
	stall := time.AfterFunc(stallTimeout, func() { cancel(errStalled) })
	if r.off == 0 {
		stall.Stop() // a builder that has removed the binary builds it again first
	}
	resp, err := r.hc.Do(req)
	if err == nil {
		if err = httpget.Check(resp); err != nil {
			resp.Body.Close()
		}
	}
	if err != nil {
		stall.Stop()
		if cause := context.Cause(ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		cancel(nil)
		return err
	}
	body := &lively{resp.Body, stall}
	if r.off > 0 {
		if err := r.skip(resp, body); err != nil {
			body.Close()
			if cause := context.Cause(ctx); cause != nil {
				err = fmt.Errorf("%w: %w", cause, err)
			}
			cancel(nil)
			return err
		}
	}
	r.etag = resp.Header.Get("ETag")
	r.body, r.cancel = body, cancel
	r.cause = func() error { return context.Cause(ctx) }
	return nil
}

// skip makes the body of an answer go on where the last one broke.
func (r *resuming) skip(resp *http.Response, body io.Reader) error {
	if resp.StatusCode == http.StatusPartialContent {
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), "bytes "+strconv.FormatInt(r.off, 10)+"-") {
			return errChanged
		}
		return nil
	}
	if r.etag != "" && resp.Header.Get("ETag") != r.etag {
		return errChanged
	}
	// The server starts over: what is there already is read again and dropped.
	_, err := io.CopyN(io.Discard, body, r.off)
	return err
}

func (r *resuming) Read(p []byte) (int, error) {
	for {
		if r.left <= 0 {
			return 0, errTooLong
		}
		n, err := r.body.Read(p[:min(int64(len(p)), r.left)])
		r.off += int64(n)
		r.left -= int64(n)
		if n > 0 {
			return n, nil
		}
		if err == nil {
			continue
		}
		if cause := r.cause(); cause != nil && err != io.EOF {
			err = fmt.Errorf("%w: %w", cause, err)
		}
		if err == io.EOF || r.ctx.Err() != nil || r.resumes >= maxResumes {
			return 0, err
		}
		for {
			r.resumes++
			select {
			case <-r.ctx.Done():
				return 0, err
			case <-time.After(time.Duration(r.resumes) * resumeDelay):
			}
			if oerr := r.open(); oerr == nil {
				break
			} else if r.resumes >= maxResumes || errors.Is(oerr, errChanged) {
				return 0, errors.Join(err, oerr)
			}
		}
	}
}

func (r *resuming) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.cancel(nil)
	r.body = nil
	return err
}

// lively is a body that ends when no byte comes for long.
type lively struct {
	io.ReadCloser
	stall *time.Timer
}

func (l *lively) Read(p []byte) (int, error) {
	l.stall.Reset(stallTimeout)
	return l.ReadCloser.Read(p)
}

func (l *lively) Close() error {
	l.stall.Stop()
	return l.ReadCloser.Close()
}
