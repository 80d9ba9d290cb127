package builder

import (
	"fmt"
	"go/version"

	"golang.org/x/mod/modfile"

	"example.org/upkeep/builder/spec"
)

// checkGoMod says why a module with this go.mod can't be built as the spec
// asks, before anything else is downloaded. nil means that it may work.
func checkGoMod(data []byte, s spec.Spec) *Failure {
	// The lax parser leaves out what dependencies may say; all of it is in the syntax.
	f, err := modfile.ParseLax("go.mod", data, nil)
	if err != nil {
		return permanent("The module's go.mod can't be read: " + firstLine(err.Error()))
	}
	if f.Module == nil {
		return permanent("The module's go.mod does not name the module.")
	}
	if f.Module.Mod.Path != s.Module {
		return notFound(fmt.Sprintf("The module's go.mod says that its path is %s, not %s.", f.Module.Mod.Path, s.Module))
	}
	for _, stmt := range f.Syntax.Stmt {
		if d := directive(stmt); d == "replace" || d == "exclude" {
			return notFound(fmt.Sprintf("The module's go.mod has %s directives, with which nobody can install it as package@version.", d))
		}
	}
	if f.Go != nil {
		if need := "go" + f.Go.Version; version.IsValid(need) && version.Compare(s.GoVersion, need) < 0 {
			return notFound(fmt.Sprintf("The module needs %s or later; the build was asked for with %s.", need, s.GoVersion))
		}
	}
	return nil
}

// directive returns the word that a statement of go.mod starts with.
func directive(stmt modfile.Expr) string {
	switch x := stmt.(type) {
	case *modfile.Line:
		if len(x.Token) > 0 {
			return x.Token[0]
		}
	case *modfile.LineBlock:
		if len(x.Token) > 0 && len(x.Line) > 0 {
			return x.Token[0]
		}
	}
	return ""
}

func firstLine(s string) string {
	for i, c := range s {
		if c == '\n' {
			return s[:i]
		}
	}
	return s
}
