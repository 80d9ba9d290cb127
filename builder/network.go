package builder

import (
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"example.org/upkeep/builder/sandbox"
)

// network returns what a command needs to reach the module proxy: settings of
// this process's environment, and the files of name resolution and certificates.
func network() (env []string, mounts []sandbox.Mount) {
	files := map[string]bool{"/etc/resolv.conf": true, "/etc/hosts": true, "/etc/nsswitch.conf": true,
		"/etc/ssl": true, "/etc/pki": true, "/etc/ca-certificates": true, "/usr/share/ca-certificates": true, "/usr/local/share/ca-certificates": true}
	for _, kv := range os.Environ() {
		k, v, _ := strings.Cut(kv, "=")
		switch strings.ToUpper(k) {
		case "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY":
			env = append(env, kv)
		case "SSL_CERT_FILE", "SSL_CERT_DIR":
			env = append(env, kv)
			for _, f := range filepath.SplitList(v) {
				files[f] = true
			}
		}
	}
	for f := range files {
		if !filepath.IsAbs(f) {
			continue
		}
		if _, err := os.Stat(f); err == nil {
			mounts = append(mounts, sandbox.Mount{Source: f, Target: f})
		}
	}
	return env, mounts
}

// hide removes from a command's output what is nobody's business: folders of
// this machine and addresses of module proxies.
func (s *Service) hide(text string) string {
	text = hideAddresses(text, append(s.src.Proxy.URLs(), strings.Fields(s.goSumDB)...))
	for _, dir := range []string{s.modCache, s.goPath, s.std.dir, s.workDir, filepath.Join(s.dir, "toolchains")} {
		text = strings.ReplaceAll(text, dir, "")
	}
	for _, root := range s.toolchains.Local() {
		text = strings.ReplaceAll(text, root+string(filepath.Separator), "GOROOT"+string(filepath.Separator))
	}
	return text
}

// What the network says of connections: both ends, and who was asked for a name.
var (
	connectionRE = regexp.MustCompile(`\b(dial|read|write) (tcp|udp)[46]? \S+?(?:->\S+?)?: `)
	resolverRE   = regexp.MustCompile(`\blookup \S+?(?: on \S+?)?: `)
)

// hideAddresses removes where a server of ours is, by its URLs and by what the
// network says. The go command and net/http leave out passwords, each otherwise.
func hideAddresses(text string, urls []string) string {
	for _, raw := range urls {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme == "" {
			continue // the name of a checksum database
		}
		text = strings.ReplaceAll(text, raw, "PROXY")
		if u.Scheme == "file" {
			text = strings.ReplaceAll(text, filepath.FromSlash(u.Path), "PROXY")
			continue
		}
		if _, ok := u.User.Password(); ok {
			text = strings.ReplaceAll(text, u.Redacted(), "PROXY")
			text = strings.ReplaceAll(text, strings.Replace(u.Redacted(), ":xxxxx@", ":***@", 1), "PROXY")
		}
		text = strings.ReplaceAll(text, u.Scheme+"://"+u.Host, "PROXY") // a redirection within it
		if u.Port() != "" || strings.Contains(u.Host, ".") {            // others may be words
			text = strings.ReplaceAll(text, u.Host, "PROXY")
		}
	}
	text = connectionRE.ReplaceAllString(text, "$1 $2: ")
	return resolverRE.ReplaceAllString(text, "lookup: ")
}

func splitLines(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		out = append(out, strings.TrimSuffix(l, "\n"))
	}
	return out
}
