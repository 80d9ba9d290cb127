package discover

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/miekg/dns"
)

// anchorsZone reads DS and DNSKEY records as in a zone file: an absolute name,
// perhaps a time to live in seconds and the class IN, the type and its fields;
// comments from ";" on, parentheses over several lines, and white space at the
// start of a line for the name above. A parser of all of that format would be a
// large part of the supervisor for nothing: there is no other record here, and
// no directive but $TTL, which means nothing here.
func anchorsZone(text string) ([]*dns.DS, error) {
	records, err := zoneFields(text)
	if err != nil {
		return nil, err
	}
	var out []*dns.DS
	owner := ""
	for _, f := range records {
		if strings.EqualFold(f[0], "$TTL") {
			continue
		}
		if f[0] != "" {
			owner = f[0]
		}
		if _, ok := dns.IsDomainName(owner); !ok || !dns.IsFqdn(owner) {
			return nil, fmt.Errorf("%.100q is not an absolute domain name", owner)
		}
		f = withoutTTL(f[1:])
		if len(f) == 0 {
			return nil, fmt.Errorf("there is no record behind the name %s", owner)
		}
		kind := strings.ToUpper(f[0])
		if kind != "DS" && kind != "DNSKEY" {
			return nil, fmt.Errorf("%.40s record of %s: only DS and DNSKEY records are trust anchors", kind, owner)
		}
		d, err := anchorFields(owner, kind == "DS", f[1:])
		if err != nil {
			return nil, err
		}
		if out = append(out, d); len(out) > maxAnchors {
			break
		}
	}
	return out, nil
}

// withoutTTL leaves the time to live and the class out, which come in either order.
func withoutTTL(f []string) []string {
	ttl, class := false, false
	for len(f) > 0 {
		_, err := strconv.ParseUint(f[0], 10, 32)
		switch {
		case err == nil && !ttl:
			ttl = true
		case strings.EqualFold(f[0], "IN") && !class:
			class = true
		default:
			return f
		}
		f = f[1:]
	}
	return f
}

// zoneFields splits the text of a zone file into records and these into their
// fields. The first one of a record without a name is "".
func zoneFields(text string) ([][]string, error) {
	text = strings.ReplaceAll(text, "\r\n", "\n")
	if i := strings.IndexFunc(text, func(c rune) bool { return c < ' ' && c != '\n' && c != '\t' }); i >= 0 {
		return nil, fmt.Errorf("it holds the control character %q", text[i])
	}
	var records [][]string
	var fields []string
	depth := 0
	start := true // of a line
	for text != "" {
		c := text[0]
		switch {
		case c == '\n':
			if text, start = text[1:], depth == 0; start && len(fields) > 0 {
				records, fields = append(records, fields), nil
			}
			continue
		case c == ' ' || c == '\t':
			n := len(text) - len(strings.TrimLeft(text, " \t"))
			// White space alone, or before a comment, begins no record.
			if text = text[n:]; start && text != "" && text[0] != '\n' && text[0] != ';' {
				fields = append(fields, "")
			}
		case c == ';':
			n := strings.IndexByte(text, '\n')
			if n < 0 {
				n = len(text)
			}
			text = text[n:]
		case c == '(' || c == ')':
			if depth += 1; c == ')' {
				depth -= 2
			}
			if depth < 0 || start {
				return nil, errors.New("a parenthesis stands where none can")
			}
			text = text[1:]
		case c == '"':
			return nil, errors.New("a quotation mark has no place in a DS or DNSKEY record")
		default:
			n := fieldEnd(text)
			fields, text = append(fields, text[:n]), text[n:]
		}
		start = false
	}
	if depth > 0 {
		return nil, errors.New("a parenthesis is not closed")
	}
	if len(fields) > 0 {
		records = append(records, fields)
	}
	return records, nil
}

// fieldEnd is where the field ends with which a text begins. Behind a backslash
// everything is a part of it.
func fieldEnd(text string) int {
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text) && text[i+1] != '\n':
			i++
		case strings.IndexByte(" \t\n;()\"", c) >= 0:
			return i
		}
	}
	return len(text)
}
