package main

import "context"

// askFirst has the running upkeep ask for new versions when it knows of none:
// by itself it does so only now and then. It returns why that failed, or "".
func askFirst(ctx context.Context, f *controlFlags) string {
	c, err := f.client()
	if err != nil {
		return "" // the order itself says so
	}
	s, err := c.Status(ctx)
	if err != nil || s.Plan.Candidate != nil || s.Update != nil {
		return ""
	}
	if err := askNow(ctx, c); err != nil {
		return err.Error()
	}
	if s, err = c.Status(ctx); err != nil || s.Plan.Candidate != nil {
		return ""
	}
	return s.Knowledge.Error
}
