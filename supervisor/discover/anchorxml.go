package discover

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/miekg/dns"
)

// An xmlKey is a KeyDigest element: its attributes, and the texts of its
// elements by their names.
type xmlKey struct{ attrs, texts map[string]string }

// anchorsXML reads the format of RFC 7958. With a zero now every key counts.
func anchorsXML(text []byte, now time.Time) ([]*dns.DS, error) {
	zone, keys, err := xmlKeys(text)
	if err != nil {
		return nil, err
	}
	if _, ok := dns.IsDomainName(zone); !ok || zone == "" {
		return nil, errors.New("it names no zone")
	}
	var out []*dns.DS
	for _, k := range keys {
		tag := k.texts["KeyTag"]
		from, err := time.Parse(time.RFC3339, k.attrs["validFrom"])
		if err != nil {
			return nil, fmt.Errorf("key %s: validFrom: %w", tag, err)
		}
		if !now.IsZero() && now.Before(from) {
			continue
		}
		if text := k.attrs["validUntil"]; text != "" {
			until, err := time.Parse(time.RFC3339, text)
			if err != nil {
				return nil, fmt.Errorf("key %s: validUntil: %w", tag, err)
			}
			if !now.IsZero() && now.After(until) {
				continue
			}
		}
		d, err := anchorFields(zone, true, []string{tag, k.texts["Algorithm"], k.texts["DigestType"], k.texts["Digest"]})
		if err != nil {
			return nil, err
		}
		out = append(out, d)
	}
	return out, nil
}

// xmlKeys takes the zone and the keys out of a TrustAnchor element. It reads
// token by token, since decoding into a struct would link much more.
func xmlKeys(text []byte) (zone string, keys []xmlKey, err error) {
	d := xml.NewDecoder(bytes.NewReader(text))
	var path []string // names of the open elements
	done := false
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) && done {
			return zone, keys, nil
		}
		if err != nil {
			return "", nil, err
		}
		switch t := tok.(type) {
		case xml.StartElement:
			path = append(path, t.Name.Local)
			if len(path) == 1 && (done || path[0] != "TrustAnchor") {
				return "", nil, fmt.Errorf("the element is %.40q, not TrustAnchor", path[0])
			}
			switch {
			case len(path) == 2 && path[1] == "Zone" && zone != "":
				return "", nil, errors.New("it names two zones")
			case len(path) == 2 && path[1] == "KeyDigest":
				k := xmlKey{map[string]string{}, map[string]string{}}
				for _, a := range t.Attr {
					k.attrs[a.Name.Local] = a.Value
				}
				if keys = append(keys, k); len(keys) > maxAnchors {
					return "", nil, fmt.Errorf("it holds more than %d keys", maxAnchors)
				}
			case len(path) == 3 && path[1] == "KeyDigest" && keys[len(keys)-1].texts[path[2]] != "":
				return "", nil, fmt.Errorf("a key has two elements %.40s", path[2])
			}
		case xml.EndElement:
			path = path[:len(path)-1]
			done = done || len(path) == 0
		case xml.CharData:
			switch {
			case len(path) == 2 && path[1] == "Zone":
				zone += string(bytes.TrimSpace(t))
			case len(path) == 3 && path[1] == "KeyDigest":
				keys[len(keys)-1].texts[path[2]] += string(bytes.TrimSpace(t))
			}
		}
	}
}
