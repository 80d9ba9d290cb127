package web

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"example.org/upkeep/web/acme"
)

func TestListenCheck(t *testing.T) {
	ca := acme.Config{Directory: "https://ca.example.org/directory", Names: []string{"host1.example.org"}}
	tests := []struct {
		l    Listen
		want string // in the error, "" = none
	}{
		{Listen{Addr: "127.0.0.1:8300"}, ""},
		{Listen{Addr: "localhost:8300"}, ""},
		{Listen{Addr: "[::1]:8300"}, ""},
		{Listen{Addr: "[::ffff:127.0.0.1]:8300"}, ""},
		{Listen{Addr: ":8300"}, "nobody has to log in"},
		{Listen{Addr: "0.0.0.0:8300", Plain: true}, "nobody has to log in"},
		{Listen{Addr: "192.0.2.1:8300", Cert: "c", Key: "k"}, "nobody has to log in"},
		{Listen{Addr: "localhost.example.org:8300"}, "nobody has to log in"},
		{Listen{Addr: ":8300", Login: true}, "without TLS"},
		{Listen{Addr: ":8300", Login: true, Plain: true}, ""},
		{Listen{Addr: "[::]:8300", Login: true, Cert: "c", Key: "k"}, ""},
		{Listen{Addr: "127.0.0.1:8300", Cert: "c"}, "need each other"},
		{Listen{Addr: "127.0.0.1:8300", Key: "k"}, "need each other"},
		{Listen{Addr: "8300"}, "not host:port"},
		{Listen{Addr: ":443", Login: true, ACME: ca}, ""},
		{Listen{Addr: ":443", ACME: ca}, "nobody has to log in"},
		{Listen{Addr: ":443", Login: true, ACME: ca, Cert: "c", Key: "k"}, "exclude each other"},
		{Listen{Addr: ":443", Login: true, ACME: acme.Config{Directory: ca.Directory}}, "needs a host name"},
		{Listen{Addr: ":443", Login: true, ACME: acme.Config{Directory: "http://ca.example.org", Names: ca.Names}}, "not an https address"},
	}
	for _, tt := range tests {
		err := tt.l.Check()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.l, err, tt.want)
		}
	}
}

// writePair writes a self-signed certificate for 127.0.0.1.
func writePair(t *testing.T, cert, key string, serial int64) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "upkeep.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"localhost"}}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &k.PublicKey, k)
	if err != nil {
		t.Fatal(err)
	}
	kd, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: kd}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestListenTLS(t *testing.T) {
	dir := t.TempDir()
	l := Listen{Addr: "127.0.0.1:0", Cert: filepath.Join(dir, "cert.pem"), Key: filepath.Join(dir, "key.pem")}
	if _, err := l.Open(t.Context()); err == nil || !strings.Contains(err.Error(), "cert.pem") {
		t.Fatalf("without files: %v", err)
	}
	writePair(t, l.Cert, l.Key, 1)
	ln, err := l.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	srv := NewServer(Secure(Security{HTTPS: true}, http.NotFoundHandler()), nil)
	go srv.Serve(ln)
	defer srv.Close()
	conn, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if _, err := tls.Dial("tcp", ln.Addr().String(), &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 was accepted")
	}
}

// A renewed certificate is taken without a restart; half a renewal is not.
func TestKeyPairReload(t *testing.T) {
	dir := t.TempDir()
	p := &keyPair{cert: filepath.Join(dir, "cert.pem"), key: filepath.Join(dir, "key.pem")}
	writePair(t, p.cert, p.key, 1)
	now := time.Now()
	serial := func(after time.Duration) int64 {
		t.Helper()
		c, err := p.get(now.Add(after))
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.Int64()
	}
	if got := serial(0); got != 1 {
		t.Fatalf("serial %d", got)
	}
	touch := func(name string, after time.Duration) {
		t.Helper()
		if err := os.Chtimes(name, time.Time{}, now.Add(after)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(p.key, []byte("not a key"), 0o600); err != nil {
		t.Fatal(err)
	}
	touch(p.key, time.Minute)
	if got := serial(2 * time.Minute); got != 1 {
		t.Errorf("half a renewal: serial %d", got)
	}
	writePair(t, p.cert, p.key, 2)
	touch(p.cert, 3*time.Minute)
	touch(p.key, 3*time.Minute)
	if got := serial(4 * time.Minute); got != 2 {
		t.Errorf("after the renewal: serial %d", got)
	}
	if err := os.Remove(p.cert); err != nil {
		t.Fatal(err)
	}
	if got := serial(5 * time.Minute); got != 2 {
		t.Errorf("files gone: serial %d", got)
	}
}
