package web

import (
	"context"
	"fmt"
	"html"
	"io"

	"github.com/a-h/templ"
)

// Line is a sentence made of texts, which are escaped, and of components, such
// as times. Nothing stands between two parts; in a template there would be
// white space, or none, as its form has it.
func Line(parts ...any) templ.Component { return line(parts) }

type line []any

func (l line) Render(ctx context.Context, w io.Writer) error {
	for _, part := range l {
		var err error
		switch p := part.(type) {
		case templ.Component:
			err = p.Render(ctx, w)
		case string:
			_, err = io.WriteString(w, html.EscapeString(p))
		default:
			err = fmt.Errorf("a line of a page can't hold %T", part)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
