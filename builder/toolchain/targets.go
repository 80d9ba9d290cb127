package toolchain

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
)

// A Target is an operating system and an architecture.
type Target struct{ GOOS, GOARCH string }

func (t Target) String() string { return t.GOOS + "/" + t.GOARCH }

// targetsFile lists the targets of a toolchain, below its src folder.
const targetsFile = "internal/platform/zosarch.go"

// parseTargets returns the targets in the text of a toolchain's zosarch.go
// that are not marked as broken.
func parseTargets(src []byte) (map[Target]bool, error) {
	f, err := parser.ParseFile(token.NewFileSet(), "zosarch.go", src, parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("reading the toolchain's targets: %w", err)
	}
	targets := map[Target]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		kv, ok := n.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, ok1 := kv.Key.(*ast.CompositeLit)
		value, ok2 := kv.Value.(*ast.CompositeLit)
		if !ok1 || !ok2 || len(key.Elts) != 2 {
			return true
		}
		goos, goarch := text(key.Elts[0]), text(key.Elts[1])
		if goos == "" || goarch == "" {
			return true
		}
		for _, elt := range value.Elts {
			if field, ok := elt.(*ast.KeyValueExpr); ok && name(field.Key) == "Broken" && name(field.Value) == "true" {
				return false
			}
		}
		targets[Target{goos, goarch}] = true
		return false
	})
	if len(targets) == 0 {
		return nil, fmt.Errorf("reading the toolchain's targets: src/%s lists none", targetsFile)
	}
	return targets, nil
}

func text(e ast.Expr) string {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return ""
	}
	s, err := strconv.Unquote(lit.Value)
	if err != nil {
		return ""
	}
	return s
}

func name(e ast.Expr) string {
	if id, ok := e.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
