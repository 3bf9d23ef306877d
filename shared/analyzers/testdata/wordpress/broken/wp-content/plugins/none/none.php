<?php
/* Plugin Name: None */
