package buildpage

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"example.org/upkeep/builder"
	"example.org/upkeep/builder/spec"
	"example.org/upkeep/web"
)

// A view is a build with what the page says about it.
type view struct {
	builder.Result
	LogName  string
	Link     string // address of the result, with a trailing slash
	File     string
	Sentence string
	Tone     string
	Sign     string
	Get      string // command lines
	Rebuild  string
	Output   []string
}

// maxOutput is how many lines of output the page shows; all of them are one
// click away.
const maxOutput = 200

// ServeResult renders the page of a build in any state.
func (p *Pages) ServeResult(w http.ResponseWriter, r *http.Request, res builder.Result) {
	v := p.view(r, res)
	page := p.page(res.Spec.Command()+" "+res.Spec.Version, "", buildMain(v))
	switch res.State {
	case builder.StateQueued, builder.StateBuilding:
		page.Refresh = 2
	case builder.StateTempFailed:
		page.Refresh = 30
	}
	if !res.Done() {
		page.Live = "/-/events?spec=" + url.QueryEscape(res.Spec.String())
	}
	web.Render(p.log, w, http.StatusOK, page)
}

func (p *Pages) view(r *http.Request, res builder.Result) view {
	key := p.service.Status(r.Context()).VerifierKey
	v := view{Result: res, Link: res.URL(), File: res.Spec.FileName()}
	v.LogName, _, _ = strings.Cut(key, "+")
	base := p.cfg.Base
	if base == "" {
		base = "http://" + r.Host
		if r.TLS != nil || p.cfg.Security.HTTPS {
			base = "https://" + r.Host
		}
	}
	switch res.State {
	case builder.StateNone:
		v.Sentence, v.Sign = "Not built yet", "?"
	case builder.StateQueued:
		v.Sentence, v.Tone, v.Sign = fmt.Sprintf("Waiting, position %d in the queue", res.Position), "info", "…"
	case builder.StateBuilding:
		v.Sentence, v.Tone, v.Sign = "Being built", "info", "…"
	case builder.StateSuccess:
		v.Sentence, v.Tone, v.Sign = "Built", "good", "✓"
	default:
		v.Sentence, v.Tone, v.Sign = "Failed: "+firstSentence(res.Error), "bad", "!"
	}
	if res.State != builder.StateSuccess && res.State != builder.StateNone {
		lines, err := p.service.Output(res.Spec)
		if err != nil {
			p.log.Error("reading the output of a build", "spec", res.Spec.String(), "err", err)
		}
		v.Output = lines[max(0, len(lines)-maxOutput):]
	}
	v.Get = getCommand(res.Spec, strings.TrimSuffix(base, "/"), key)
	v.Rebuild = reproduce(res.Spec)
	return v
}

// ask is what the button says that starts the build.
func (v view) ask() string {
	switch {
	case v.State == builder.StateSuccess:
		return "Build it again"
	case v.Error != "":
		return "Try again"
	}
	return "Build it"
}

// stripped says whether a build is.
func stripped(s spec.Spec) string {
	if s.Stripped {
		return ", stripped"
	}
	return ""
}

// steps is how long each step of a build took.
func steps(list []builder.Step) string {
	var parts []string
	for _, s := range list {
		parts = append(parts, s.Name+" "+web.Seconds(s.Took))
	}
	return strings.Join(parts, ", ")
}

// firstSentence keeps a heading short; the page has the whole reason as well.
func firstSentence(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	if i := strings.Index(text, ". "); i >= 0 {
		text = text[:i+1]
	}
	if runes := []rune(text); len(runes) > 200 {
		text = string(runes[:200]) + "…"
	}
	return text
}

// getCommand is the command that gets the binary with every check.
func getCommand(s spec.Spec, base, key string) string {
	stripped := ""
	if s.Stripped {
		stripped = "-stripped "
	}
	return fmt.Sprintf("upkeep get -builder %s -key '%s' -os %s -arch %s -go %s %s%s@%s",
		base, key, s.GOOS, s.GOARCH, s.GoVersion, stripped, s.Package(), s.Version)
}

// reproduce is the command that makes the same binary, and its sum.
func reproduce(s spec.Spec) string {
	ldflags := "-buildid="
	if s.Stripped {
		ldflags += " -s"
	}
	return fmt.Sprintf("GOBIN= GOPATH=$PWD/gopath CGO_ENABLED=0 GOOS=%s GOARCH=%s GOTOOLCHAIN=%s GOWORK=off GOFLAGS= \\\n"+
		"  go install -trimpath -ldflags='%s' -- %s@%s\n"+
		"printf 0; openssl dgst -sha256 -binary $(find gopath/bin -type f) | head -c 20 | basenc --base64url | tr -d =; echo",
		s.GOOS, s.GOARCH, s.GoVersion, ldflags, s.Package(), s.Version)
}

// maxWait bounds how long the pages wait for a build that somebody asked for
// on a page. A build that nobody waits for is given up by the service.
const maxWait = time.Hour

// build starts a build, or a failed one again, and leads to its page.
func (p *Pages) build(w http.ResponseWriter, r *http.Request) {
	sp, err := spec.Parse(r.PostFormValue("spec"))
	if err != nil {
		p.ServeError(w, r, http.StatusBadRequest, err.Error())
		return
	}
	if err := p.service.Forget(sp); err != nil {
		p.log.Error("forgetting a failed build", "spec", sp.String(), "err", err)
		p.ServeError(w, r, http.StatusInternalServerError, "The build was not started: its earlier result could not be forgotten.")
		return
	}
	p.wait(sp, builder.ClientOf(r), r.Context())
	http.Redirect(w, r, "/"+sp.String(), http.StatusSeeOther)
}

// wait starts a build and waits for it in the background. It returns when the
// build is in the queue, so that the page that follows shows it there.
func (p *Pages) wait(sp spec.Spec, client string, ctx context.Context) {
	p.mu.Lock()
	waiting := p.started[sp]
	p.started[sp] = true
	p.mu.Unlock()
	if waiting {
		return
	}
	begun := make(chan struct{})
	go func() {
		bg, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxWait)
		defer cancel()
		first := true
		tell := func(builder.Event) error {
			if first {
				first = false
				close(begun)
			}
			return nil
		}
		if _, err := p.service.Watch(bg, sp, client, tell); err != nil {
			p.log.Warn("a build that was asked for on a page", "spec", sp.String(), "err", err)
		}
		_ = tell(builder.Event{}) // it only closes
		p.mu.Lock()
		delete(p.started, sp)
		p.mu.Unlock()
	}()
	select {
	case <-begun:
	case <-ctx.Done():
	}
}
