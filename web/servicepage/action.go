package servicepage

import (
	"fmt"
	"net/http"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web/login"
)

var knownVerbs = map[string]bool{
	supervisor.VerbUpdate: true, supervisor.VerbCheck: true, supervisor.VerbCancel: true,
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
		By:        who(r),
	}
	if r.PostForm.Get("confirmed") == "" {
		st, ok := s.status(w, r)
		if !ok {
			return
		}
		if question, against := againstPolicy(a, st); against {
			s.pages.Render(w, http.StatusOK, "confirm.html", s.page(r, question, "", confirmView{question, a}))
			return
		}
	}
	if code, err := s.do(r.Context(), a); err != nil {
		s.message(w, r, code, "Not done", err.Error())
		return
	}
	http.Redirect(w, r, s.path("/"), http.StatusSeeOther)
}

type confirmView struct {
	Question string
	supervisor.Action
}

// againstPolicy says whether an action does something that the policy would
// not do by itself, and the question to ask then.
func againstPolicy(a supervisor.Action, st supervisor.Status) (string, bool) {
	switch a.Verb {
	case supervisor.VerbRollback:
		if a.Version == "" {
			return "Go back to the version before this one?", true
		}
		return fmt.Sprintf("Go back to %s?", a.Version), true
	case supervisor.VerbUpdate:
		c := st.Plan.Candidate
		if a.Version == "" || c != nil && a.Version == c.Version && (a.GoVersion == "" || a.GoVersion == c.GoVersion) {
			if st.Hold {
				return "This service is on hold. Install the update nevertheless?", true
			}
			return "", false
		}
		for _, v := range st.Plan.Versions {
			if v.Version == a.Version && (a.GoVersion == "" || v.GoVersion == a.GoVersion) && !v.Chosen {
				return fmt.Sprintf("Install %s nevertheless? The policy says: %s", a.Version, v.Reason), true
			}
		}
		return fmt.Sprintf("Install %s, which is not among the known versions?", a.Version), true
	}
	return "", false
}

// who is the name that the history keeps for a request.
func who(r *http.Request) string {
	if name := login.Name(r.Context()); name != "" {
		return name
	}
	return "web"
}
