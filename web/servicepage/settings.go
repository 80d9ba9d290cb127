package servicepage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"strings"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
	"example.org/upkeep/web/login"
)

// Settings is the configuration file, for the page that shows and changes it.
type Settings interface {
	File() string
	// Read returns the file's text and every value that is in force with
	// where it comes from.
	Read() (text string, values []Setting, err error)
	// Check returns what is wrong with a text, nothing when it is good.
	Check(text string) []Problem
	// Save replaces the file by a good text, atomically.
	Save(text string) error
}

// A Setting is one value of the configuration.
type Setting struct {
	Key, Value, Origin, Doc string
}

// tone marks values that somebody has set.
func (x Setting) tone() string {
	if x.Origin == "default" {
		return ""
	}
	return " info"
}

// A Problem is a mistake in a configuration.
type Problem struct {
	Line, Column int // 0 when it belongs to no line
	Text         string
}

type settingsView struct {
	File     string
	Text     string
	Mark     string // of the text that was edited, to notice changes by others
	Edit     bool
	Why      string // it can't be edited here
	Problems []problemView
	Done     string
	Values   []Setting
	ReadErr  string
}

type problemView struct {
	Problem
	Source string // the line
}

// mark tells two texts apart.
func mark(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}

// mayEdit says why somebody must not change the configuration, "" when they
// may. It names commands that the supervisor runs, so it takes the operator's
// consent in the file itself, and a person who has logged in: neither a token
// nor a page without login is enough.
func (s *server) mayEdit(r *http.Request) string {
	switch {
	case !s.cfg.EditSettings:
		return "Editing here is off; web.edit_config = true in the file turns it on."
	case s.cfg.Login == nil:
		return "Editing here needs a login; set a password with \"upkeep passwd\"."
	case !login.HasSession(r.Context()):
		return "Editing here takes a person who has logged in with a password."
	}
	return ""
}

func (s *server) showSettings(w http.ResponseWriter, r *http.Request) {
	text, values, err := s.cfg.Settings.Read()
	v := settingsView{Text: text, Mark: mark(text), Values: values}
	if err != nil {
		v.ReadErr = err.Error()
	}
	if r.URL.Query().Get("saved") != "" {
		v.Done = "Saved and in force. The service was not touched."
	}
	s.settings(w, r, http.StatusOK, v)
}

func (s *server) settings(w http.ResponseWriter, r *http.Request, status int, v settingsView) {
	v.File = s.cfg.Settings.File()
	v.Why = s.mayEdit(r)
	v.Edit = v.Why == ""
	web.Render(s.log, w, status, s.page(r, "Configuration", "", s.settingsMain(v)))
}

// saveSettings checks what was edited, and saves it if asked to and good.
func (s *server) saveSettings(w http.ResponseWriter, r *http.Request) {
	if why := s.mayEdit(r); why != "" {
		s.message(w, r, http.StatusForbidden, "Not saved", why)
		return
	}
	if err := r.ParseForm(); err != nil {
		s.message(w, r, http.StatusBadRequest, "Not saved", "The form could not be read: "+err.Error())
		return
	}
	text := strings.ReplaceAll(r.PostForm.Get("text"), "\r\n", "\n")
	if text != "" && !strings.HasSuffix(text, "\n") {
		text += "\n"
	}
	v := settingsView{Text: text, Mark: r.PostForm.Get("mark")}
	problems := s.cfg.Settings.Check(text)
	old, values, err := s.cfg.Settings.Read()
	v.Values = values
	switch {
	case err != nil:
		problems = append(problems, Problem{Text: err.Error()})
	case mark(old) != v.Mark:
		problems = append(problems, Problem{Text: "The file was changed by somebody else meanwhile. Keep your text, load this page anew and put your changes in again."})
	}
	if len(problems) > 0 {
		lines := strings.Split(text, "\n")
		for _, p := range problems {
			pv := problemView{Problem: p}
			if p.Line > 0 && p.Line <= len(lines) {
				pv.Source = lines[p.Line-1]
			}
			v.Problems = append(v.Problems, pv)
		}
		s.settings(w, r, http.StatusUnprocessableEntity, v)
		return
	}
	if r.PostForm.Get("do") == "check" {
		v.Done = "No mistakes. Nothing has been saved yet."
		s.settings(w, r, http.StatusOK, v)
		return
	}
	if err := s.cfg.Settings.Save(text); err != nil {
		s.log.Error("saving the configuration", "err", err)
		v.Problems = []problemView{{Problem: Problem{Text: err.Error()}}}
		s.settings(w, r, http.StatusInternalServerError, v)
		return
	}
	s.log.Info("the configuration was changed on the web page", "by", who(r))
	err = s.ctl.Do(r.Context(), supervisor.Action{Verb: supervisor.VerbReload, By: who(r)})
	var refused *supervisor.RefusedError
	if err != nil {
		text := "It is saved, and could not be put in force: " + err.Error()
		if errors.As(err, &refused) {
			text = "It is saved and not in force: " + refused.Msg
		}
		s.message(w, r, http.StatusConflict, "Saved, but not in force", text)
		return
	}
	http.Redirect(w, r, s.path("/config")+"?saved=1", http.StatusSeeOther)
}
