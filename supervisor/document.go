package supervisor

import (
	"fmt"
	"os"
	"slices"
	"time"

	"example.org/upkeep/supervisor/policy"
)

// document is what the state file holds.
type document struct {
	Seed      string               `json:"seed"` // of this installation's place in the jitter
	Update    *update              `json:"update,omitempty"`
	Repair    string               `json:"repair,omitempty"` // file that the service's name is to stand for and doesn't
	Installed binaryList           `json:"installed,omitempty"`
	Paused    bool                 `json:"paused,omitempty"`
	PausedBy  string               `json:"paused_by,omitempty"`
	PausedWhy string               `json:"paused_reason,omitempty"`
	Hold      bool                 `json:"hold,omitempty"`
	HoldBy    string               `json:"hold_by,omitempty"`
	Pin       *Pair                `json:"pin,omitempty"`
	Skips     []Skip               `json:"skips,omitempty"`
	FirstSeen map[string]time.Time `json:"first_seen,omitempty"`
	Failures  map[string]failure   `json:"failures,omitempty"`
	Events    []Event              `json:"events,omitempty"`
	Last      *Result              `json:"last_result,omitempty"`
	Known     *known               `json:"known,omitempty"`
	Self      selfDocument         `json:"self,omitzero"`

	Appointment *appointment `json:"appointment,omitempty"`
}

// selfDocument is what there is to know of upkeep itself.
type selfDocument struct {
	Update    *update              `json:"update,omitempty"`
	Installed binaryList           `json:"installed,omitempty"`
	Skips     []Skip               `json:"skips,omitempty"`
	FirstSeen map[string]time.Time `json:"first_seen,omitempty"`
	Failures  map[string]failure   `json:"failures,omitempty"`
	Known     *known               `json:"known,omitempty"`
	Last      *Result              `json:"last_result,omitempty"`
	Since     time.Time            `json:"since,omitzero"` // when the version took over
}

// known is the last good answer of discovery, so that status and decisions
// have something to go by after a start without network.
type known struct {
	Module     string             `json:"module"`
	Releases   []policy.Release   `json:"releases"`
	GoReleases []policy.GoRelease `json:"go_releases"`
	Source     string             `json:"source"`
	Proof      string             `json:"proof"`
	LogSize    int64              `json:"log_size"`
	At         time.Time          `json:"at"`
}

// update is the journal of an update: all that is needed to finish or undo it.
type update struct {
	ID        string    `json:"id"`
	Kind      string    `json:"kind"` // update or rollback
	Step      string    `json:"step"` // patch, minor, …
	From      Pair      `json:"from"`
	To        Pair      `json:"to"`
	FromFile  string    `json:"from_file,omitempty"`
	ToFile    string    `json:"to_file,omitempty"`
	FromSum   string    `json:"from_sum,omitempty"`
	ToSum     string    `json:"to_sum,omitempty"`
	Size      int64     `json:"size,omitempty"`
	Builder   string    `json:"builder,omitempty"`
	LogIndex  int64     `json:"log_index,omitempty"`
	LogSize   int64     `json:"log_size,omitempty"`
	Agreed    []string  `json:"agreed,omitempty"`
	By        string    `json:"by"`
	Asked     bool      `json:"asked"` // by a person
	State     State     `json:"state"`
	When      time.Time `json:"when,omitzero"`
	Started   time.Time `json:"started,omitzero"`
	Reason    string    `json:"reason,omitempty"`   // why it is rolled back
	Blame     bool      `json:"blame,omitempty"`    // the new version is at fault
	Stopped   time.Time `json:"stopped,omitzero"`   // the old process
	Running   time.Time `json:"running,omitzero"`   // the new process
	StepFrom  time.Time `json:"step_from,omitzero"` //
	Boot      string    `json:"boot,omitempty"`     // of the machine, when an update of upkeep began its trial
	Deadline  time.Time `json:"-"`
	open      *os.File  // the new binary as it was verified
	refused   bool
	unwritten bool   // it is good, and the journal can't be told
	StepsDone []Step `json:"steps,omitempty"`
}

// installed is a binary beside the service's name.
type installed struct {
	Pair
	File     string    `json:"file"`
	Sum      string    `json:"sum"`
	Size     int64     `json:"size"`
	Builder  string    `json:"builder,omitempty"`
	LogIndex int64     `json:"log_index,omitempty"`
	LogSize  int64     `json:"log_size,omitempty"`
	Agreed   []string  `json:"agreed,omitempty"`
	Since    time.Time `json:"since,omitzero"` // when it was installed for good, zero: never
	Left     time.Time `json:"left,omitzero"`  // when another one took its place
}

// used is when a binary last did its work, zero when it never did for long.
func (b installed) used() time.Time {
	if b.Left.After(b.Since) {
		return b.Left
	}
	return b.Since
}

// failure is remembered for as long as its wait.
type failure struct {
	Count     int       `json:"count"`
	Until     time.Time `json:"until"`
	Text      string    `json:"text"`
	Cancelled bool      `json:"cancelled,omitempty"` // somebody didn't want it now
	Pair      Pair      `json:"pair,omitzero"`
	Permanent bool      `json:"permanent,omitempty"` // the same build fails again
}

// words say why a candidate isn't installed yet.
func (f failure) words() string {
	if f.Cancelled {
		return f.Text
	}
	return fmt.Sprintf("it failed %d times, the last time because: %s", f.Count, f.Text)
}

// binaryList are binaries that can be gone back to.
type binaryList []installed

func (l binaryList) find(file string) *installed {
	for i := range l {
		if l[i].File == file {
			return &l[i]
		}
	}
	return nil
}

func (l *binaryList) remember(b installed) {
	if old := l.find(b.File); old != nil {
		*old = b
		return
	}
	*l = append(*l, b)
}

func (l *binaryList) forget(file string) {
	*l = slices.DeleteFunc(*l, func(b installed) bool { return b.File == file })
}

// goodFirst returns the binaries in the order in which somebody goes back to
// them: the last used one first, and at the end those that aren't wanted.
func (l binaryList) goodFirst(unwanted []Skip) binaryList {
	list := slices.Clone(l)
	slices.SortStableFunc(list, func(a, b installed) int {
		if x, y := skips(unwanted, a.Pair), skips(unwanted, b.Pair); x != y {
			if x {
				return 1
			}
			return -1
		}
		return b.used().Compare(a.used())
	})
	return list
}

// previous returns what a roll-back that names no version goes to, or the one
// that it names.
func (l binaryList) previous(unwanted []Skip, running Pair, a Action) *installed {
	for _, b := range l.goodFirst(unwanted) {
		switch {
		case b.Pair == running:
		case a.Version == "" && (skips(unwanted, b.Pair) || b.used().IsZero()):
			// It was left for a reason, or it was never more than downloaded.
		case a.Version == "" || b.Version == a.Version && (a.GoVersion == "" || a.GoVersion == b.GoVersion):
			return &b
		}
	}
	return nil
}

// replaced notes that one binary has taken the place of another for good.
func (l binaryList) replaced(from, to string, now time.Time) {
	if b := l.find(from); b != nil {
		b.Left = now
	}
	if b := l.find(to); b != nil {
		b.Since = now
	}
}

func (d *document) binary(file string) *installed { return d.Installed.find(file) }

func (d *document) skipped(p Pair) bool { return skips(d.Skips, p) }

func skips(list []Skip, p Pair) bool {
	return slices.ContainsFunc(list, func(s Skip) bool { return s.Pair == p })
}

// policyPair and pairOf translate between the page's type and the policy's.
func (p Pair) policy() policy.Pair { return policy.Pair{Version: p.Version, GoVersion: p.GoVersion} }

func pairOf(p policy.Pair) Pair { return Pair{p.Version, p.GoVersion} }
