package proxy

import (
	"fmt"
	"net"
	"regexp"
	"strconv"
	"strings"
)

// fieldRE is all that can stand between {{ and }}: a part of an address and the
// quoted name of a listener. It is no language: there are no pipes, variables
// or conditions.
var fieldRE = regexp.MustCompile("^[ \\t]*\\.(Addr|Host|Port)[ \\t]+(\"(?:[^\"\\\\]|\\\\.)*\"|`[^`]*`)[ \\t]*$")

const allowed = `only {{.Addr "name"}}, {{.Host "name"}} and {{.Port "name"}} can be filled in`

// Expand fills {{.Addr "name"}}, {{.Host "name"}} and {{.Port "name"}} in.
func (b Backends) Expand(text string) (string, error) {
	var out strings.Builder
	for rest := text; ; {
		before, behind, found := strings.Cut(rest, "{{")
		out.WriteString(before)
		if !found {
			return out.String(), nil
		}
		field, after, closed := strings.Cut(behind, "}}")
		m := fieldRE.FindStringSubmatch(field)
		if !closed || m == nil {
			return "", fmt.Errorf("%q can't be filled in: %s", text, allowed)
		}
		value, err := b.part(m[1], m[2])
		if err != nil {
			return "", fmt.Errorf("%q can't be filled in: %w", text, err)
		}
		out.WriteString(value)
		rest = after
	}
}

// part is the address, host or port of the listener with a quoted name.
func (b Backends) part(which, quoted string) (string, error) {
	name, err := strconv.Unquote(quoted)
	if err != nil {
		return "", fmt.Errorf("the name %s is not quoted as Go quotes it: %w", quoted, err)
	}
	addr, ok := b[name]
	if !ok {
		return "", fmt.Errorf("there is no proxy address %q", name)
	}
	if which == "Addr" {
		return addr, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if which == "Host" {
		return host, err
	}
	return port, err
}
