package buildpage

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"example.org/upkeep/builder/spec"
	"example.org/upkeep/web"
)

const (
	maxViewers = 200                    // streams of events at once
	look       = 700 * time.Millisecond // how often a stream looks for a change
	pause      = 500 * time.Millisecond // least time between two events
)

// events tells a viewer when a build, or the list of builds, has changed. It
// starts nothing, unlike the events of formats that are below a build's own
// address.
func (p *Pages) events(w http.ResponseWriter, r *http.Request) {
	select {
	case p.viewers <- struct{}{}:
		defer func() { <-p.viewers }()
	default:
		w.Header().Set("Retry-After", "30")
		http.Error(w, "too many viewers; reload the page instead", http.StatusServiceUnavailable)
		return
	}
	mark := p.homeMark
	if text := r.FormValue("spec"); text != "" {
		sp, err := spec.Parse(text)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		mark = func(context.Context) string { return p.buildMark(sp) }
	}
	changed := make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	// Taken before the viewer is told anything: what changes after the viewer
	// has loaded the page must differ from it.
	last := mark(ctx)
	go func() {
		tick := time.NewTicker(look)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if now := mark(ctx); now != last {
				last = now
				select {
				case changed <- struct{}{}:
				default:
				}
			}
		}
	}()
	web.ServeChanges(w, r, changed, pause)
}

// homeMark and buildMark are texts that differ when the page would.
func (p *Pages) homeMark(ctx context.Context) string {
	st := p.service.Status(ctx)
	mark := fmt.Sprintln(st.LogSize, len(st.Queued), len(st.Alarms), len(st.Recent))
	for _, b := range st.Building {
		mark += b.Spec.String() + "\n"
	}
	if len(st.Recent) > 0 {
		mark += st.Recent[0].Spec.String() + st.Recent[0].Started.String()
	}
	return mark
}

func (p *Pages) buildMark(sp spec.Spec) string {
	res, err := p.service.Result(sp)
	if err != nil {
		return err.Error()
	}
	lines, err := p.service.Output(sp)
	if err != nil {
		return err.Error()
	}
	return fmt.Sprintln(res.State, res.Position, res.Tries, len(lines))
}
