{application, x, [{vsn, git}]}.
