%% made by rebar
{application, tide,
 [{description, "Tides {not a tuple}"},
  {vsn, "1.2.3"},
  {modules, [tide_app, tide_sup]},
  {registered, []},
  {applications, [kernel, stdlib, 'plug_cowboy']},
  {mod, {tide_app, []}}]}.
