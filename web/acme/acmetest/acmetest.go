// Package acmetest is a small certification authority that speaks ACME (RFC
// 8555), for tests. It checks what it can: signatures and nonces of requests,
// and the tls-alpn-01 challenge by connecting to the server, as a real one
// does. No program imports it.
package acmetest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A CA is an authority. Every name is at one address, and certificates last
// for Life.
type CA struct {
	URL   string // of the directory
	Roots string // PEM file with the root of the CA's own https server
	Pool  *x509.CertPool

	t    testing.TB
	srv  *httptest.Server
	key  *ecdsa.PrivateKey
	cert *x509.Certificate

	mu     sync.Mutex
	addr   string
	life   time.Duration
	refuse bool
	nonces map[string]bool
	keys   map[string]jwk // accounts
	orders map[string]*order
	issued int
	seen   []string // why challenges failed
}

type order struct {
	names  []string
	proven map[string]bool
	failed bool
	der    []byte
	key    jwk
}

type jwk struct{ Crv, Kty, X, Y string }

// New starts an authority that connects to addr when it checks a name.
func New(t testing.TB, addr string) *CA {
	t.Helper()
	ca := &CA{t: t, addr: addr, life: 90 * 24 * time.Hour, nonces: map[string]bool{}, keys: map[string]jwk{}, orders: map[string]*order{}}
	var err error
	ca.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(1000 * 24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &ca.key.PublicKey, ca.key)
	must(t, err)
	ca.cert, err = x509.ParseCertificate(der)
	must(t, err)
	ca.Pool = x509.NewCertPool()
	ca.Pool.AddCert(ca.cert)

	ca.srv = httptest.NewTLSServer(http.HandlerFunc(ca.serve))
	t.Cleanup(ca.srv.Close)
	ca.URL = ca.srv.URL + "/directory"
	ca.Roots = filepath.Join(t.TempDir(), "roots.pem")
	must(t, os.WriteFile(ca.Roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.srv.Certificate().Raw}), 0o600))
	return ca
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Life sets how long new certificates last.
func (ca *CA) Life(d time.Duration) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.life = d
}

// Refuse makes the authority answer new orders with an error.
func (ca *CA) Refuse(on bool) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	ca.refuse = on
}

// Issued is how many certificates there are.
func (ca *CA) Issued() int {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return ca.issued
}

// Failures are the reasons of failed challenges.
func (ca *CA) Failures() []string {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	return append([]string(nil), ca.seen...)
}

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func random() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return b64(b)
}

func (ca *CA) serve(w http.ResponseWriter, r *http.Request) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	nonce := random()
	ca.nonces[nonce] = true
	w.Header().Set("Replay-Nonce", nonce)
	base := ca.srv.URL
	switch r.URL.Path {
	case "/directory":
		answer(w, 200, map[string]any{"newNonce": base + "/nonce", "newAccount": base + "/account", "newOrder": base + "/order",
			"revokeCert": base + "/none", "keyChange": base + "/none", "meta": map[string]string{"termsOfService": base + "/terms"}})
		return
	case "/nonce":
		return
	}
	payload, key, err := ca.verify(r)
	if err != nil {
		problem(w, 400, "malformed", err.Error())
		return
	}
	kind, id, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	o := ca.orders[id]
	if o == nil && kind != "account" && kind != "order" {
		problem(w, 404, "malformed", "no such order")
		return
	}
	switch kind {
	case "account":
		var req struct{ TermsOfServiceAgreed, OnlyReturnExisting bool }
		_ = json.Unmarshal(payload, &req) // its absence is an answer
		for url, k := range ca.keys {
			if k == key {
				w.Header().Set("Location", url)
				answer(w, 200, map[string]string{"status": "valid"})
				return
			}
		}
		if req.OnlyReturnExisting {
			problem(w, 400, "accountDoesNotExist", "no such account")
			return
		}
		if !req.TermsOfServiceAgreed {
			problem(w, 403, "userActionRequired", "agree to the terms")
			return
		}
		url := base + "/account/" + random()
		ca.keys[url] = key
		w.Header().Set("Location", url)
		answer(w, 201, map[string]string{"status": "valid"})
	case "order":
		if id == "" {
			if ca.refuse {
				problem(w, 403, "rejectedIdentifier", "not for you")
				return
			}
			var req struct {
				Identifiers []struct{ Type, Value string }
			}
			if err := json.Unmarshal(payload, &req); err != nil || len(req.Identifiers) == 0 {
				problem(w, 400, "malformed", "no names")
				return
			}
			o, id = &order{proven: map[string]bool{}, key: key}, random()
			for _, i := range req.Identifiers {
				o.names = append(o.names, i.Value)
			}
			ca.orders[id] = o
			w.Header().Set("Location", base+"/order/"+id)
			answer(w, 201, ca.describe(id, o))
			return
		}
		w.Header().Set("Location", base+"/order/"+id)
		answer(w, 200, ca.describe(id, o))
	case "authz", "chall":
		name := r.URL.Query().Get("name")
		if kind == "chall" && !o.proven[name] && !o.failed {
			if err := ca.check(name, id, o.key); err != nil {
				o.failed = true
				ca.seen = append(ca.seen, err.Error())
			} else {
				o.proven[name] = true
			}
		}
		status := "pending"
		if o.failed {
			status = "invalid"
		} else if o.proven[name] {
			status = "valid"
		}
		ch := map[string]any{"type": "tls-alpn-01", "url": base + "/chall/" + id + "?name=" + name, "token": "token-" + id, "status": status}
		if o.failed {
			ch["error"] = map[string]any{"type": "urn:ietf:params:acme:error:unauthorized", "detail": ca.seen[len(ca.seen)-1], "status": 403}
		}
		if kind == "chall" {
			answer(w, 200, ch)
			return
		}
		answer(w, 200, map[string]any{"status": status, "identifier": map[string]string{"type": "dns", "value": name},
			"challenges": []any{map[string]any{"type": "http-01", "url": base + "/none", "token": "x", "status": "pending"}, ch}})
	case "finalize":
		var req struct{ CSR string }
		if err := json.Unmarshal(payload, &req); err != nil || len(o.proven) != len(o.names) {
			problem(w, 403, "orderNotReady", "names are not proven")
			return
		}
		if err := ca.issue(o, req.CSR); err != nil {
			problem(w, 400, "badCSR", err.Error())
			return
		}
		w.Header().Set("Location", base+"/order/"+id)
		answer(w, 200, ca.describe(id, o))
	case "cert":
		w.Header().Set("Content-Type", "application/pem-certificate-chain")
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: o.der})       // gone client
		_ = pem.Encode(w, &pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw}) // gone client
	default:
		problem(w, 404, "malformed", "no such address")
	}
}

func (ca *CA) describe(id string, o *order) map[string]any {
	d := map[string]any{"status": "pending", "finalize": ca.srv.URL + "/finalize/" + id}
	var authz []string
	for _, n := range o.names {
		authz = append(authz, ca.srv.URL+"/authz/"+id+"?name="+n)
	}
	d["authorizations"] = authz
	switch {
	case o.failed:
		d["status"] = "invalid"
	case o.der != nil:
		d["status"], d["certificate"] = "valid", ca.srv.URL+"/cert/"+id
	case len(o.proven) == len(o.names):
		d["status"] = "ready"
	}
	return d
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(v) // gone client
}

func problem(w http.ResponseWriter, code int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]any{"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": code}) // gone client
}

// verify checks a request's signature (JWS, ES256), address and nonce.
func (ca *CA) verify(r *http.Request) ([]byte, jwk, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, jwk{}, err
	}
	var msg struct{ Protected, Payload, Signature string }
	if err := json.Unmarshal(data, &msg); err != nil {
		return nil, jwk{}, err
	}
	raw, err := base64.RawURLEncoding.DecodeString(msg.Protected)
	if err != nil {
		return nil, jwk{}, err
	}
	var head struct {
		Alg, Kid, Nonce, URL string
		Jwk                  *jwk
	}
	if err := json.Unmarshal(raw, &head); err != nil {
		return nil, jwk{}, err
	}
	key, known := ca.keys[head.Kid]
	if head.Jwk != nil {
		key, known = *head.Jwk, true
	}
	if !known || head.Alg != "ES256" || !strings.HasSuffix(head.URL, r.URL.RequestURI()) || !ca.nonces[head.Nonce] {
		return nil, jwk{}, fmt.Errorf("a bad head: %s", raw)
	}
	delete(ca.nonces, head.Nonce)
	x, errX := base64.RawURLEncoding.DecodeString(key.X)
	y, errY := base64.RawURLEncoding.DecodeString(key.Y)
	sig, errS := base64.RawURLEncoding.DecodeString(msg.Signature)
	if err := errors.Join(errX, errY, errS); err != nil || len(sig) != 64 {
		return nil, jwk{}, fmt.Errorf("a bad key or signature: %w", err)
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), append(append([]byte{4}, x...), y...))
	if err != nil {
		return nil, jwk{}, err
	}
	sum := sha256.Sum256([]byte(msg.Protected + "." + msg.Payload))
	if !ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
		return nil, jwk{}, errors.New("the signature is wrong")
	}
	payload, err := base64.RawURLEncoding.DecodeString(msg.Payload)
	return payload, key, err
}

// check is the tls-alpn-01 challenge, RFC 8737 section 3.
func (ca *CA) check(name, id string, key jwk) error {
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 20 * time.Second}, "tcp", ca.addr, &tls.Config{ServerName: name, NextProtos: []string{"acme-tls/1"}, InsecureSkipVerify: true})
	if err != nil {
		return fmt.Errorf("connecting: %w", err)
	}
	defer conn.Close()
	st := conn.ConnectionState()
	leaf := st.PeerCertificates[0]
	if st.NegotiatedProtocol != "acme-tls/1" || len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != name {
		return fmt.Errorf("the challenge is for %v by %q", leaf.DNSNames, st.NegotiatedProtocol)
	}
	thumb := sha256.Sum256([]byte(fmt.Sprintf(`{"crv":"%s","kty":"%s","x":"%s","y":"%s"}`, key.Crv, key.Kty, key.X, key.Y)))
	want := sha256.Sum256([]byte("token-" + id + "." + b64(thumb[:])))
	for _, ext := range leaf.Extensions {
		if !ext.Id.Equal(asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 31}) || !ext.Critical {
			continue
		}
		var got []byte
		if _, err := asn1.Unmarshal(ext.Value, &got); err != nil || string(got) != string(want[:]) {
			return errors.New("the challenge has another key authorization")
		}
		return nil
	}
	return errors.New("the challenge has no extension")
}

func (ca *CA) issue(o *order, text string) error {
	der, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil {
		return err
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return err
	}
	if err := csr.CheckSignature(); err != nil {
		return err
	}
	if len(csr.DNSNames) != len(o.names) {
		return fmt.Errorf("names %v, ordered %v", csr.DNSNames, o.names)
	}
	ca.issued++
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(int64(ca.issued + 1)), DNSNames: o.names, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(ca.life), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	o.der, err = x509.CreateCertificate(rand.Reader, tmpl, ca.cert, csr.PublicKey, ca.key)
	return err
}
