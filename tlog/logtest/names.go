package logtest

import "strconv"

var words = [...]string{
	"api", "auth", "aws", "block", "build", "cache", "chain", "cloud", "cmd", "config", "core", "crypto", "data", "db",
	"deploy", "docker", "env", "event", "file", "flow", "form", "git", "go", "graph", "grpc", "hash", "http", "image",
	"json", "kit", "kube", "lib", "link", "list", "log", "mail", "map", "mesh", "metric", "mock", "net", "node", "oauth",
	"parse", "path", "pool", "proto", "proxy", "queue", "raft", "redis", "rpc", "scan", "sdk", "server", "shell", "sql",
	"store", "stream", "task", "term", "test", "time", "token", "tool", "trace", "tree", "util", "web", "worker", "yaml",
}

var zones = [...]string{"com", "org", "io", "dev", "net", "de", "co.uk", "sh", "tech", "xyz"}

// appendPath appends the path of a module, unique to its number.
func (c *Content) appendPath(b []byte, id uint64) []byte {
	h := mix(id ^ c.Seed*31)
	word := func(shift uint) string { return words[h>>shift%uint64(len(words))] }
	unique := func(b []byte) []byte { return strconv.AppendUint(b, id<<4&(1<<48-1)|id>>48, 36) }
	switch r := h % 100; {
	case r < 4:
		// A vanity host.
		b = append(append(b, word(8)...), word(16)...)
		b = strconv.AppendUint(b, h>>24%300, 10)
		b = append(append(b, '.'), zones[h>>40%uint64(len(zones))]...)
		b = append(append(append(b, '/'), word(30)...), '-')
		return unique(b)
	case r < 5:
		b = append(append(append(b, "gopkg.in/"...), word(8)...), '-')
		return append(unique(b), ".v1"...)
	case r < 9:
		// One of few owners with very many modules and long paths.
		b = append(append(b, "github.com/Azure/"...), word(8)...)
		b = append(append(append(b, "-sdk/services/"...), word(16)...), '/')
		b = append(append(append(append(b, word(24)...), '/'), "mgmt/2021-03-01/"...), word(32)...)
		return unique(b)
	}
	switch h >> 50 % 40 {
	case 0:
		b = append(b, "gitlab.com/"...)
	case 1:
		b = append(b, "bitbucket.org/"...)
	default:
		b = append(b, "github.com/"...)
	}
	// Four modules in a row are of one owner.
	o := mix(id>>2 ^ c.Seed*17)
	owner := len(b)
	b = append(b, words[o%uint64(len(words))]...)
	if o>>20%4 == 0 {
		b = append(append(b, '-'), words[o>>8%uint64(len(words))]...)
	}
	b = strconv.AppendUint(b, o>>30%20000, 10)
	if o>>16%10 == 0 {
		b[owner] -= 'a' - 'A'
	}
	b = append(append(append(b, '/'), word(8)...), '-')
	if h>>57%16 == 0 {
		b[len(b)-2] -= 'a' - 'A'
	}
	b = unique(b)
	if h>>44%12 == 0 {
		b = append(append(b, '/'), word(22)...)
	}
	return b
}

// isGopkg reports whether the path just appended is on gopkg.in.
func isGopkg(b []byte, id uint64, c *Content) bool { return mix(id^c.Seed*31)%100 == 4 }
