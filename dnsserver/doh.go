package dnsserver

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/miekg/dns"
)

// DoHPath is where DNS over HTTPS answers (RFC 8484).
const DoHPath = "/dns-query"

const dohType = "application/dns-message"

// DoH returns the handler of DNS over HTTPS.
func (s *Server) DoH() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ap, err := netip.ParseAddrPort(r.RemoteAddr)
		if err != nil {
			http.Error(w, "no address", http.StatusInternalServerError)
			return
		}
		client := Client{netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), HTTPS}
		leave, ok := s.EnterStream(client)
		if !ok {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "too many queries at once", http.StatusServiceUnavailable)
			return
		}
		defer leave()
		packet, code, err := dohQuery(w, r)
		if err != nil {
			http.Error(w, err.Error(), code)
			return
		}
		out := s.Answer(r.Context(), packet, client)
		if len(out) == 0 {
			http.Error(w, "the message is not a DNS query", http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", dohType)
		w.Header().Set("Content-Length", strconv.Itoa(len(out)))
		w.Header().Set("Cache-Control", fmt.Sprintf("max-age=%d", freshness(out)))
		_, _ = w.Write(out) // the asker may be gone
	})
}

func dohQuery(w http.ResponseWriter, r *http.Request) (packet []byte, code int, err error) {
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		text := r.URL.Query().Get("dns")
		if text == "" {
			return nil, http.StatusBadRequest, errors.New("the parameter dns is missing")
		}
		if packet, err = base64.RawURLEncoding.DecodeString(text); err != nil {
			return nil, http.StatusBadRequest, errors.New("the parameter dns is not base64url without padding")
		}
	case http.MethodPost:
		if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != dohType {
			return nil, http.StatusUnsupportedMediaType, errors.New("the content type is not " + dohType)
		}
		if packet, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxSize)); err != nil {
			return nil, http.StatusRequestEntityTooLarge, errors.New("the message can't be read, or is too long")
		}
	default:
		w.Header().Set("Allow", "GET, HEAD, POST")
		return nil, http.StatusMethodNotAllowed, errors.New("use GET or POST")
	}
	return packet, 0, nil
}

// freshness is the smallest TTL in a message of ours, and 0 for an error.
func freshness(b []byte) uint32 {
	if rcode := b[3] & 0xf; rcode != dns.RcodeSuccess && rcode != dns.RcodeNameError {
		return 0
	}
	off := headerLen
	for range binary.BigEndian.Uint16(b[4:]) {
		off = skipName(b, off) + 4
	}
	n := int(binary.BigEndian.Uint16(b[6:])) + int(binary.BigEndian.Uint16(b[8:])) + int(binary.BigEndian.Uint16(b[10:]))
	least, any := uint32(1<<31), false
	for range n {
		off = skipName(b, off)
		if binary.BigEndian.Uint16(b[off:]) != dns.TypeOPT {
			least, any = min(least, binary.BigEndian.Uint32(b[off+4:])), true
		}
		off += 10 + int(binary.BigEndian.Uint16(b[off+8:]))
	}
	if !any {
		return 0
	}
	return least
}
