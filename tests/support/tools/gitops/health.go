package main

import (
	"errors"
	"fmt"
	"os"

	lua "github.com/yuin/gopher-lua"
)

// health runs the script as Argo CD does (util/lua/lua.go of argo-cd): gopher-lua with its package, base and table
// libraries; we leave out os, of which Argo CD opens a part.
func health(arguments []string) error {
	if len(arguments) != 1 {
		return errors.New("health takes a script")
	}
	script, err := os.ReadFile(arguments[0])
	if err != nil {
		return err
	}
	return answer(func(object map[string]any) (verdict, error) { return healthOf(string(script), object) })
}

func healthOf(script string, object map[string]any) (verdict, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{lua.BaseLibName: lua.OpenBase, lua.TabLibName: lua.OpenTable} {
		state.Push(state.NewFunction(open))
		state.Push(lua.LString(name))
		state.Call(1, 0)
	}
	state.SetGlobal("obj", luaValue(state, object))
	if err := state.DoString(script); err != nil {
		return verdict{}, err
	}
	told, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return verdict{}, fmt.Errorf("the script returned %s, not a table", state.Get(-1).Type())
	}
	return verdict{
		Status:  lua.LVAsString(told.RawGetString("status")),
		Message: lua.LVAsString(told.RawGetString("message")),
	}, nil
}

func luaValue(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case bool:
		return lua.LBool(value)
	case float64:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	case []any:
		table := state.NewTable()
		for _, item := range value {
			table.Append(luaValue(state, item))
		}
		return table
	case map[string]any:
		table := state.NewTable()
		for key, item := range value {
			table.RawSetString(key, luaValue(state, item))
		}
		return table
	}
	return lua.LNil
}
