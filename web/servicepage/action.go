package servicepage

import (
	"fmt"
	"net/http"
	"net/url"
	"time"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/login"
)

var knownVerbs = map[string]bool{
	supervisor.VerbUpdate: true, supervisor.VerbSchedule: true, supervisor.VerbCheck: true, supervisor.VerbCancel: true,
	supervisor.VerbHold: true, supervisor.VerbUnhold: true,
	supervisor.VerbSkip: true, supervisor.VerbUnskip: true,
	supervisor.VerbPin: true, supervisor.VerbUnpin: true,
	supervisor.VerbPause: true, supervisor.VerbResume: true,
	supervisor.VerbRollback: true, supervisor.VerbReload: true,
}

// action does what a form asks for and leads back to the overview. What goes
// against the policy needs a second click.
func (s *server) action(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		s.message(w, r, http.StatusBadRequest, "Not done", "The form could not be read: "+err.Error())
		return
	}
	a := supervisor.Action{
		Verb:      r.PostForm.Get("verb"),
		Version:   r.PostForm.Get("version"),
		GoVersion: r.PostForm.Get("go_version"),
		Reason:    r.PostForm.Get("reason"),
		Self:      r.PostForm.Get("self") == "true",
		By:        who(r),
	}
	if a.Verb == supervisor.VerbSchedule {
		var err error
		if a.At, err = scheduledAt(r.PostForm.Get("at"), r.PostForm.Get("local")); err != nil {
			s.message(w, r, http.StatusBadRequest, "Not done", err.Error())
			return
		}
	}
	if r.PostForm.Get("confirmed") == "" {
		st, ok := s.status(w, r)
		if !ok {
			return
		}
		if question, against := againstPolicy(a, st); against {
			web.Render(s.log, w, http.StatusOK, s.page(r, question, "", s.confirmMain(question, a)))
			return
		}
	}
	if code, err := s.do(r.Context(), a); err != nil {
		s.message(w, r, code, "Not done", err.Error())
		return
	}
	http.Redirect(w, r, s.path("/"), http.StatusSeeOther)
}

// againstPolicy says whether an action does something that the policy would
// not do by itself, and the question to ask then.
func againstPolicy(a supervisor.Action, st supervisor.Status) (string, bool) {
	switch a.Verb {
	case supervisor.VerbRollback:
		if a.Self && a.Version != "" {
			return fmt.Sprintf("Take upkeep itself back to %s?", a.Version), true
		}
		if a.Version == "" {
			return "Go back to the version before this one?", true
		}
		return fmt.Sprintf("Go back to %s?", a.Version), true
	case supervisor.VerbUpdate, supervisor.VerbSchedule:
		plan, hold := st.Plan, st.Hold
		if a.Self {
			plan, hold = supervisor.Plan{}, false
			if st.Self.Plan != nil {
				plan = *st.Self.Plan
			}
		}
		c := plan.Candidate
		if a.Version == "" || c != nil && a.Version == c.Version && (a.GoVersion == "" || a.GoVersion == c.GoVersion) {
			if hold {
				return "This service is on hold. Install the update nevertheless?", true
			}
			return "", false
		}
		for _, v := range plan.Versions {
			if v.Version == a.Version && (a.GoVersion == "" || v.GoVersion == a.GoVersion) && !v.Chosen {
				return fmt.Sprintf("Install %s nevertheless? The policy says: %s", a.Version, v.Reason), true
			}
		}
		return fmt.Sprintf("Install %s, which is not among the known versions?", a.Version), true
	}
	return "", false
}

// scheduledAt reads the time of the form. The script sends the instant; without
// it the field is in UTC, as its label says.
func scheduledAt(at, local string) (time.Time, error) {
	if at != "" {
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return t, fmt.Errorf("%.40q is not a time", at)
		}
		return t, nil
	}
	for _, layout := range []string{"2006-01-02T15:04", "2006-01-02T15:04:05", "2006-01-02 15:04"} {
		if t, err := time.Parse(layout, local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%.40q is not a time like 2026-11-21 02:00", local)
}

// schedule is the page on which a time is chosen for a version.
func (s *server) schedule(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	version, goVersion := q.Get("version"), q.Get("go_version")
	if version == "" || len(version) > maxVersion || len(goVersion) > maxGoVersion {
		s.message(w, r, http.StatusBadRequest, "Not known", "The address names no version to schedule.")
		return
	}
	// Tomorrow's small hours are when most people want it.
	now := s.now().UTC()
	suggest := time.Date(now.Year(), now.Month(), now.Day()+1, 3, 0, 0, 0, time.UTC)
	main := s.scheduleMain(supervisor.Pair{Version: version, GoVersion: goVersion}, suggest)
	web.Render(s.log, w, http.StatusOK, s.page(r, "Schedule "+version, "", main))
}

// scheduleLink is that page's address for a version.
func (s *server) scheduleLink(version, goVersion string) string {
	return s.path(scheduleQuery(version, goVersion))
}

func scheduleQuery(version, goVersion string) string {
	return "/schedule?" + url.Values{"version": {version}, "go_version": {goVersion}}.Encode()
}

// who is the name that the history keeps for a request.
func who(r *http.Request) string {
	if name := login.Name(r.Context()); name != "" {
		return name
	}
	return "web"
}
