package builder

import (
	"os"
	"path/filepath"
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
	for _, p := range s.src.Proxy.URLs() {
		text = strings.ReplaceAll(text, p, "PROXY")
	}
	for _, dir := range []string{s.modCache, s.goPath, s.std.dir, s.workDir, filepath.Join(s.dir, "toolchains")} {
		text = strings.ReplaceAll(text, dir, "")
	}
	for _, root := range s.toolchains.Local() {
		text = strings.ReplaceAll(text, root+string(filepath.Separator), "GOROOT"+string(filepath.Separator))
	}
	return text
}

func splitLines(s string) []string {
	var out []string
	for l := range strings.Lines(s) {
		out = append(out, strings.TrimSuffix(l, "\n"))
	}
	return out
}
