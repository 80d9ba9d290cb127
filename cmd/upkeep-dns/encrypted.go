package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"

	"example.org/upkeep/dnsserver"
	"example.org/upkeep/web/acme"
)

func (t *TLSConfig) check() error {
	if !t.on() {
		return nil
	}
	if t.ACME != "" {
		if t.Certificate != "" || t.Key != "" {
			return errors.New("tls.acme: a certificate in files and one by ACME exclude each other; set one of them")
		}
		if t.DoH == "" {
			return errors.New("tls.acme: the authority asks by HTTPS whether the names are ours; set tls.doh, and let port 443 of the names lead there")
		}
		if err := t.authority().Check(); err != nil {
			return fmt.Errorf("tls.acme: %w", err)
		}
		return nil
	}
	if t.Certificate == "" || t.Key == "" {
		return errors.New("tls.certificate and tls.key: both files are needed for tls.dot, tls.doq and tls.doh")
	}
	_, err := tls.LoadX509KeyPair(t.Certificate, t.Key)
	if err != nil {
		return fmt.Errorf("tls.certificate: %w", err)
	}
	return nil
}

// authority says where a certificate by ACME comes from.
func (t *TLSConfig) authority() acme.Config {
	return acme.Config{Directory: t.ACME, Names: t.Names, Contact: t.Contact, Roots: t.Roots}
}

// on reports whether there are encrypted transports.
func (t *TLSConfig) on() bool { return t.DoT != "" || t.DoH != "" || t.DoQ != "" }

func (t *TLSConfig) same(o *TLSConfig) bool {
	return t.Certificate == o.Certificate && t.Key == o.Key && t.ACME == o.ACME && slices.Equal(t.Names, o.Names) && t.Contact == o.Contact && t.Roots == o.Roots
}

// announced are the ports for the SVCB records.
func (t *TLSConfig) announced() dnsserver.Encrypted {
	return dnsserver.Encrypted{DoT: portOf(t.DoT), DoH: portOf(t.DoH), DoQ: portOf(t.DoQ)}
}

func portOf(addr string) uint16 {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// cookieSecrets reads a file of secrets.
func cookieSecrets(file string) ([][16]byte, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("limits.cookie_secrets: %w", err)
	}
	secrets, err := dnsserver.ParseCookieSecrets(string(data))
	if err != nil {
		return nil, fmt.Errorf("limits.cookie_secrets: %s: %w", file, err)
	}
	return secrets, nil
}
