{application, stdlib, [{vsn,"4.2"},{applications, [kernel]}]}.
