package acme

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	client "golang.org/x/crypto/acme"

	"example.org/upkeep/internal/durable"
)

const (
	accountFile     = "account.key"
	certificateFile = "certificate"
)

// maxFile bounds what is read of our own files.
const maxFile = 256 << 10

func (m *Manager) file(name string) string { return filepath.Join(m.cfg.Dir, name) }

// order goes through one order, RFC 8555 section 7.4, and keeps the certificate.
func (m *Manager) order(ctx context.Context) (*tls.Certificate, error) {
	key, err := m.accountKey()
	if err != nil {
		return nil, err
	}
	c := &client.Client{Key: key, DirectoryURL: m.cfg.Directory, HTTPClient: m.http, UserAgent: "upkeep"}
	account := &client.Account{}
	if m.cfg.Contact != "" {
		account.Contact = []string{"mailto:" + m.cfg.Contact}
	}
	// Naming the directory in the configuration is the consent to its terms.
	if _, err := c.Register(ctx, account, client.AcceptTOS); err != nil && !errors.Is(err, client.ErrAccountAlreadyExists) {
		return nil, fmt.Errorf("account: %w", err)
	}
	o, err := c.AuthorizeOrder(ctx, client.DomainIDs(m.cfg.Names...))
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	for _, address := range o.AuthzURLs {
		if err := m.prove(ctx, c, address); err != nil {
			return nil, err
		}
	}
	if o, err = c.WaitOrder(ctx, o.URI); err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	certKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: m.cfg.Names}, certKey)
	if err != nil {
		return nil, err
	}
	chain, _, err := c.CreateOrderCert(ctx, o.FinalizeURL, csr, true)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	text, err := encode(certKey, chain)
	if err != nil {
		return nil, err
	}
	cert, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("the certificate that was issued: %w", err)
	}
	if due(cert, m.cfg.Names, m.now()) {
		return nil, fmt.Errorf("the certificate that was issued is for %v until %s, not for %v from now on", cert.Leaf.DNSNames, cert.Leaf.NotAfter, m.cfg.Names)
	}
	if err := durable.WriteFile(m.file(certificateFile), text, 0o600); err != nil {
		return nil, fmt.Errorf("keeping the certificate: %w", err)
	}
	return cert, nil
}

// prove shows the authority that a name is ours.
func (m *Manager) prove(ctx context.Context, c *client.Client, address string) error {
	z, err := c.GetAuthorization(ctx, address)
	if err != nil {
		return fmt.Errorf("authorization: %w", err)
	}
	name := strings.ToLower(z.Identifier.Value)
	if z.Status == client.StatusValid {
		return nil
	}
	if z.Status != client.StatusPending || !slices.Contains(m.cfg.Names, name) {
		return fmt.Errorf("the authority wants a proof for %q, which is %s", name, z.Status)
	}
	i := slices.IndexFunc(z.Challenges, func(ch *client.Challenge) bool { return ch.Type == "tls-alpn-01" })
	if i < 0 {
		return fmt.Errorf("the authority offers no tls-alpn-01 challenge for %s", name)
	}
	cert, err := c.TLSALPN01ChallengeCert(z.Challenges[i].Token, name)
	if err != nil {
		return fmt.Errorf("challenge for %s: %w", name, err)
	}
	m.mu.Lock()
	m.challenges[name] = &cert
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.challenges, name)
		m.mu.Unlock()
	}()
	if _, err := c.Accept(ctx, z.Challenges[i]); err != nil {
		return fmt.Errorf("challenge for %s: %w", name, err)
	}
	if _, err := c.WaitAuthorization(ctx, z.URI); err != nil {
		return fmt.Errorf("the authority did not accept the proof for %s; does port 443 of that name lead here? %w", name, err)
	}
	return nil
}

// accountKey reads the account's key, or makes it.
func (m *Manager) accountKey() (crypto.Signer, error) {
	data, err := readFile(m.file(accountFile))
	if errors.Is(err, os.ErrNotExist) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, err
		}
		text, err := encode(key, nil)
		if err != nil {
			return nil, err
		}
		if err := durable.WriteFile(m.file(accountFile), text, 0o600); err != nil {
			return nil, fmt.Errorf("keeping the key of the ACME account: %w", err)
		}
		return key, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the key of the ACME account: %w", err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("the key of the ACME account in %s is not PEM; remove the file to get a new account", m.file(accountFile))
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("the key of the ACME account in %s: %w", m.file(accountFile), err)
	}
	signer, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key of the ACME account in %s is not an ECDSA key", m.file(accountFile))
	}
	return signer, nil
}

func encode(key *ecdsa.PrivateKey, chain [][]byte) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	for _, c := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c})...)
	}
	return text, nil
}

// parse reads key and chain; the key has to be the certificate's.
func parse(text []byte) (*tls.Certificate, error) {
	c, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	if c.Leaf == nil {
		if c.Leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
			return nil, err
		}
	}
	return &c, nil
}

func readCertificate(file string) (*tls.Certificate, error) {
	text, err := readFile(file)
	if err != nil {
		return nil, err
	}
	c, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

func readFile(name string) ([]byte, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxFile {
		return nil, fmt.Errorf("%s is %d bytes long; at most %d", name, fi.Size(), maxFile)
	}
	return os.ReadFile(name)
}
