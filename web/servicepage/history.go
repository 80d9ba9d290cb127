package servicepage

import (
	"fmt"
	"net/http"
	"strings"

	"example.org/upkeep/supervisor"
	"example.org/upkeep/web"
)

// A historyView is the history, filtered.
type historyView struct {
	Query   string
	Choices []choice
	Results []resultView
	Events  []supervisor.Event
	Total   int // entries without the filter
}

// A choice is an option of the filter.
type choice struct {
	Value, Text string
	Selected    bool
}

// history shows the results, by result and version.
func (s *server) history(w http.ResponseWriter, r *http.Request) {
	st, ok := s.status(w, r)
	if !ok {
		return
	}
	q := r.URL.Query()
	want, text := q.Get("result"), strings.TrimSpace(q.Get("q"))
	v := historyView{Query: text, Events: st.Events, Total: len(st.History)}
	for _, k := range []string{"", supervisor.ResultInstalled, supervisor.ResultRolledBack, supervisor.ResultRefused,
		supervisor.ResultFailed, supervisor.ResultCancelled, supervisor.ResultPostponed, resultDone} {
		label := resultText[k]
		switch k {
		case "":
			label = "everything"
		case resultDone:
			label = "decisions"
		}
		v.Choices = append(v.Choices, choice{k, label, k == want})
	}
	for _, res := range st.History {
		if want != "" && res.Result != want {
			continue
		}
		if text != "" && !strings.Contains(fmt.Sprint(res.From, " ", res.To, " ", res.Reason, " ", res.By, " ", res.Kind), text) {
			continue
		}
		v.Results = append(v.Results, s.viewResult(st, res))
	}
	web.Render(s.log, w, http.StatusOK, s.page(r, "History", "", s.historyMain(v)))
}
